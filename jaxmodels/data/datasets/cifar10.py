"""CIFAR-10, binary version: color images of 32 x 32 in 10 classes, 50,000 train, 10,000 test (Krizhevsky,
2009)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data import locate
from jaxmodels.data.archive import members
from jaxmodels.data.normalize import Statistics, behind, from_bytes
from jaxmodels.data.pipeline import ArrayPipeline, Augment

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPEC = {"image": ((32, 32, 3), np.dtype(np.float32)), "label": ((), np.dtype(np.int32))}
WHERE = "https://www.cs.toronto.edu/~kriz/cifar.html (the binary version)"
ARCHIVE = "cifar-10-binary.tar.gz"
FILES: locate.Files = {
    ARCHIVE: (170052171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")
}
PARTS = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
ROW = 1 + 3 * 32 * 32  # bytes: the class, then red, green and blue


def cifar10(
    split: Literal["train", "test"],
    batch: int,
    seed: int | None = None,
    *,
    folder: locate.PathLike | None = None,
    augment: Sequence[Augment] = (),
    normalize: Statistics | None = None,
) -> ArrayPipeline:
    """Batches of "image" (float32, 0 to 1, 32 x 32 x 3) and "label" (int32).

    Memory holds the images as bytes.

    folder: the folder with cifar-10-binary.tar.gz or its .bin files; else $JAXMODELS_DATA/cifar10, else
        ~/.cache/jaxmodels/data/cifar10.
    normalize: see data/normalize.py.
    """
    choices.check("cifar10", "split", split, PARTS)

    def open() -> dict[str, np.ndarray]:
        files = _files(locate.folder("cifar10", folder), PARTS[split])
        rows = np.concatenate([np.frombuffer(data, np.uint8).reshape(-1, ROW) for data in files.values()])
        if rows[:, 0].max() >= len(CLASSES):
            raise ValueError(
                f"cifar10: got class {rows[:, 0].max()}; expected at most 9. Get the files again from {WHERE}"
            )
        images = np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        return {"image": images, "label": rows[:, 0].astype(np.int32)}

    return ArrayPipeline(open, batch=batch, seed=seed, spec=SPEC, **behind(normalize, 3, from_bytes, augment))


def _files(folder: Path, names: Sequence[str]) -> Mapping[str, bytes]:
    """The contents of these files, from the folder where it has all of them, else from the archive."""
    if all((folder / name).is_file() for name in names):
        files = {name: (folder / name).read_bytes() for name in names}
    else:
        locate.check(folder, FILES, where=WHERE)
        contents = members(folder / ARCHIVE, lambda name: Path(name).name in names, limit=1 << 28)
        files = {Path(name).name: data for name, data in sorted(contents.items())}
    for name, data in files.items():
        if len(data) % ROW or not data:
            raise ValueError(
                f"{folder / name}: got {len(data):,} bytes; expected rows of {ROW:,}. Replace it by the file "
                f"from {WHERE}"
            )
    return files
