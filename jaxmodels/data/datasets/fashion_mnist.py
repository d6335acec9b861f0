"""Fashion-MNIST: grey images of clothes, 28 x 28 in 10 classes; 60,000 train, 10,000 test
(arXiv:1708.07747)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data import locate
from jaxmodels.data.formats.tables import read_idx
from jaxmodels.data.normalize import Statistics, behind, from_bytes
from jaxmodels.data.pipeline import ArrayPipeline, Augment

CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
SPEC = {"image": ((28, 28, 1), np.dtype(np.float32)), "label": ((), np.dtype(np.int32))}
WHERE = (
    "https://github.com/zalandoresearch/fashion-mnist (data/fashion) or Debian's package "
    "dataset-fashion-mnist"
)
FILES: dict[str, locate.Files] = {
    "train": {
        "train-images-idx3-ubyte.gz": (
            26421856,
            "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
        ),
        "train-labels-idx1-ubyte.gz": (
            29491,
            "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
        ),
    },
    "test": {
        "t10k-images-idx3-ubyte.gz": (
            4422079,
            "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
        ),
        "t10k-labels-idx1-ubyte.gz": (
            5125,
            "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
        ),
    },
}


def fashion_mnist(
    split: Literal["train", "test"],
    batch: int,
    seed: int | None = None,
    *,
    folder: locate.PathLike | None = None,
    augment: Sequence[Augment] = (),
    normalize: Statistics | None = None,
) -> ArrayPipeline:
    """Batches of "image" (float32, 0 to 1, 28 x 28 x 1) and "label" (int32).

    Memory holds the images as bytes.

    folder: the folder with the four files; else $JAXMODELS_DATA/fashion_mnist, else
        ~/.cache/jaxmodels/data/fashion_mnist.
    normalize: see data/normalize.py.
    """
    choices.check("fashion_mnist", "split", split, FILES)
    return ArrayPipeline(
        lambda: _read(split, folder),
        batch=batch,
        seed=seed,
        spec=SPEC,
        **behind(normalize, 1, from_bytes, augment),
    )


def numbered(
    split: Literal["train", "test"],
    rows: int,
    batch: int,
    *,
    folder: locate.PathLike | None = None,
    normalize: Statistics | None = None,
) -> ArrayPipeline:
    """The first `rows` images in order, with "index" (int32), which keys the random choices of a model for
    each."""
    choices.check("fashion_mnist", "split", split, FILES)

    def open() -> dict[str, np.ndarray]:
        arrays = {name: x[:rows] for name, x in _read(split, folder).items()}
        return {**arrays, "index": np.arange(len(arrays["label"]), dtype=np.int32)}

    spec = {**SPEC, "index": ((), np.dtype(np.int32))}
    return ArrayPipeline(open, batch=batch, spec=spec, **behind(normalize, 1, from_bytes, ()))


def half_known(
    rows: int,
    batch: int,
    *,
    folder: locate.PathLike | None = None,
    normalize: Statistics | None = None,
) -> ArrayPipeline:
    """`rows` training images, then as many test images; "known" (float32) is 1 where a probe may see the
    label."""

    def open() -> dict[str, np.ndarray]:
        parts = [{name: x[:rows] for name, x in _read(split, folder).items()} for split in ("train", "test")]
        known = [np.full(len(part["label"]), 1 - i, np.float32) for i, part in enumerate(parts)]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {**joined, "known": np.concatenate(known)}

    spec = {**SPEC, "known": ((), np.dtype(np.float32))}
    return ArrayPipeline(open, batch=batch, spec=spec, **behind(normalize, 1, from_bytes, ()))


def _read(split: str, folder: locate.PathLike | None) -> dict[str, np.ndarray]:
    path = locate.folder("fashion_mnist", folder)
    locate.check(path, FILES[split], where=WHERE)
    images, labels = (read_idx(path / name) for name in FILES[split])
    return {"image": images[..., None], "label": labels.astype(np.int32)}
