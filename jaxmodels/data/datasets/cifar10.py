"""CIFAR-10: colour pictures of 32 x 32 in 10 classes, 50,000 to train, 10,000 to test (Krizhevsky, 2009), binary version."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data import locate
from jaxmodels.data.archive import members
from jaxmodels.data.normalize import Statistics, behind
from jaxmodels.data.pipeline import ArrayPipeline, Augment

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPEC = {"image": ((32, 32, 3), np.dtype(np.float32)), "label": ((), np.dtype(np.int32))}
WHERE = "https://www.cs.toronto.edu/~kriz/cifar.html (the binary version)"
ARCHIVE = "cifar-10-binary.tar.gz"
FILES: dict[str, tuple[int, str | None]] = {
    ARCHIVE: (170052171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")
}
PARTS = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
ROW = 1 + 3 * 32 * 32  # bytes: the class, then red, green and blue


def cifar10(
    split: Literal["train", "test"],
    batch: int,
    seed: int | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    augment: Sequence[Augment] = (),
    normalize: Statistics | None = None,
) -> ArrayPipeline:
    """Batches of "image" (float32, 0 to 1, 32 x 32 x 3) and "label" (int32).

    folder: where cifar-10-binary.tar.gz is, or its .bin files; else $JAXMODELS_DATA/cifar10, else
    ~/.cache/jaxmodels/data/cifar10. Memory holds the pictures as bytes. normalize: see data/normalize.py.
    """
    choices.check("cifar10", "split", split, PARTS)

    def open() -> dict[str, np.ndarray]:
        files = _files(locate.folder("cifar10", folder), PARTS[split])
        rows = np.concatenate([np.frombuffer(data, np.uint8).reshape(-1, ROW) for data in files.values()])
        if rows[:, 0].max() >= len(CLASSES):
            raise ValueError(
                f"cifar10: came class {rows[:, 0].max()}; wanted at most 9: get the files again from {WHERE}"
            )
        images = np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        return {"image": images, "label": rows[:, 0].astype(np.int32)}

    return ArrayPipeline(open, batch=batch, seed=seed, spec=SPEC, **behind(normalize, 3, _scale, augment))


def _files(where: Path, names: Sequence[str]) -> Mapping[str, bytes]:
    """The contents of the parts, from loose files where there are all, else from the archive."""
    if all((where / name).is_file() for name in names):
        files = {name: (where / name).read_bytes() for name in names}
    else:
        locate.check(where, FILES, where=WHERE)
        found = members(where / ARCHIVE, lambda name: Path(name).name in names, limit=1 << 28)
        files = {Path(name).name: data for name, data in sorted(found.items())}
    for name, data in files.items():
        if len(data) % ROW or not data:
            raise ValueError(
                f"{where / name} has {len(data):,} bytes, wanted rows of {ROW:,}; replace it by the one from {WHERE}"
            )
    return files


def _scale(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, "image": batch["image"].astype(np.float32) * np.float32(1 / 255)}
