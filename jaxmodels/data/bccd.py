"""BCCD: blood under the microscope, 364 images of 640 x 480 with red and white cells and platelets in boxes."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np

from jaxmodels.data import cache
from jaxmodels.data.archive import members
from jaxmodels.data.images import open_picture
from jaxmodels.data.pipeline import ArrayPipeline, Augment

CLASSES = ("red cell", "white cell", "platelet")
NAMES = ("RBC", "WBC", "Platelets")
MOST = 40  # boxes of an image; the fullest has 30
WHERE = "https://github.com/Shenggan/BCCD_Dataset (packed as bccd.tar.gz)"
FILES: dict[str, tuple[int, str | None]] = {
    "bccd.tar.gz": (7416390, "bb8c9d2464f5517066245dde00e41d3f8e008e75e7b72254d5a910adc5e52f51")
}


def bccd(
    split: Literal["train", "val", "test", "trainval"],
    batch: int,
    seed: int | None = None,
    *,
    size: tuple[int, int] = (240, 320),
    folder: str | os.PathLike[str] | None = None,
    augment: Sequence[Augment] = (),
) -> ArrayPipeline:
    """Batches of "image" (float32, 0 to 1, size x 3), "boxes" (MOST x 4: y0 x0 y1 x1 in its pixels), "classes" (int32),
    "present" (1, or 0 for padding) and "index" (int32, the number of the image in the split).

    205 images to train, 87 to validate, 72 to test; trainval is the first two. folder: where bccd.tar.gz is; else
    $JAXMODELS_DATA/bccd, else ~/.cache/jaxmodels/data/bccd. Needs pillow.
    """
    if split not in ("train", "val", "test", "trainval"):
        raise ValueError(f"bccd: came split={split!r}, wanted train, val, test or trainval")

    def open() -> dict[str, np.ndarray]:
        where = cache.folder("bccd", folder)
        cache.check(where, FILES, where=WHERE)
        files = members(where / "bccd.tar.gz", lambda name: name.endswith((".xml", ".jpg", ".txt")), limit=1 << 28)
        names = files[f"BCCD/ImageSets/Main/{split}.txt"].decode().split()
        found = [_example(files, name, size) for name in names]
        return {
            "image": np.stack([image for image, _, _ in found]),
            "boxes": np.stack([_filled(boxes, (MOST, 4), np.float32) for _, boxes, _ in found]),
            "classes": np.stack([_filled(classes, (MOST,), np.int32) for _, _, classes in found]),
            "present": np.stack([_filled(np.ones(len(classes)), (MOST,), np.float32) for _, _, classes in found]),
            "index": np.arange(len(names), dtype=np.int32),
        }

    spec = {
        "image": ((*size, 3), np.dtype(np.float32)),
        "boxes": ((MOST, 4), np.dtype(np.float32)),
        "classes": ((MOST,), np.dtype(np.int32)),
        "present": ((MOST,), np.dtype(np.float32)),
        "index": ((), np.dtype(np.int32)),
    }
    return ArrayPipeline(open, batch=batch, seed=seed, prepare=_scale, augment=augment, spec=spec)


def _example(files: dict[str, bytes], name: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image as bytes, boxes in its pixels, classes) of one image."""
    from PIL import Image

    picture = open_picture(io.BytesIO(files[f"BCCD/JPEGImages/{name}.jpg"]))
    scale = np.array([size[0] / picture.height, size[1] / picture.width] * 2)
    image = np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))
    boxes, classes = read_voc(files[f"BCCD/Annotations/{name}.xml"], NAMES)
    return image, boxes * scale, classes


def read_voc(text: bytes, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(boxes M4: y0 x0 y1 x1, classes M) of an annotation of Pascal VOC; classes number `names`. Empty boxes are left out.

    Declarations of entities are refused: a few lines of them can stand for gigabytes.
    """
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ValueError(
            "the annotation declares a document type; wanted plain XML, as Pascal VOC's; remove the declaration"
        )
    boxes, classes = [], []
    for found in ElementTree.fromstring(text).iter("object"):
        name = found.findtext("name", "")
        if name not in names:
            raise ValueError(f"the annotation names a {name!r}; wanted one of {', '.join(names)}; mend it or name the class")
        box = [float(found.findtext(f"bndbox/{key}", "nan")) for key in ("ymin", "xmin", "ymax", "xmax")]
        if box[2] > box[0] and box[3] > box[1]:
            boxes.append(box)
            classes.append(names.index(name))
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int32)


def _filled(values: np.ndarray, shape: tuple[int, ...], kind: Any) -> np.ndarray:
    out = np.zeros(shape, kind)
    out[: len(values)] = values[: shape[0]]
    return out


def _scale(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, "image": batch["image"].astype(np.float32) * np.float32(1 / 255)}
