"""BCCD: blood under the microscope, 364 images of 640 x 480 with boxes of red and white cells and
platelets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jaxmodels import choices
from jaxmodels.data import locate
from jaxmodels.data.formats.voc import read_voc, voc_folder
from jaxmodels.data.normalize import Statistics
from jaxmodels.data.pipeline import ArrayPipeline, Augment

__all__ = ["CLASSES", "MOST", "NAMES", "bccd", "read_voc"]

CLASSES = ("red cell", "white cell", "platelet")
NAMES = ("RBC", "WBC", "Platelets")
MOST = 40  # boxes of an image; the fullest has 30
WHERE = "https://github.com/Shenggan/BCCD_Dataset (packed as bccd.tar.gz)"
FILES: locate.Files = {
    "bccd.tar.gz": (7416390, "bb8c9d2464f5517066245dde00e41d3f8e008e75e7b72254d5a910adc5e52f51")
}


def bccd(
    split: Literal["train", "val", "test", "trainval"],
    batch: int,
    seed: int | None = None,
    *,
    size: tuple[int, int] = (240, 320),
    folder: locate.PathLike | None = None,
    augment: Sequence[Augment] = (),
    normalize: Statistics | None = None,
) -> ArrayPipeline:
    """Batches of images with boxes, as of voc_folder, with MOST boxes each. Needs pillow.

    205 images to train, 87 to validate, 72 to test; trainval is the first two.

    folder: the folder with bccd.tar.gz; else $JAXMODELS_DATA/bccd, else ~/.cache/jaxmodels/data/bccd.
    normalize: see data/normalize.py.
    """
    choices.check("bccd", "split", split, ("train", "val", "test", "trainval"))
    path = locate.folder("bccd", folder)

    def archive() -> Path:
        locate.check(path, FILES, where=WHERE)
        return path / "bccd.tar.gz"

    return voc_folder(
        archive,
        NAMES,
        size=size,
        batch=batch,
        split=split,
        seed=seed,
        most=MOST,
        augment=augment,
        normalize=normalize,
    )
