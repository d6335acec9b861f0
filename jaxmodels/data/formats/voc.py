"""Images with boxes in the folders of Pascal VOC: Annotations/*.xml, JPEGImages/* and ImageSets/Main/<split>.txt."""

from __future__ import annotations

import io
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from jaxmodels.data.archive import is_archive, members
from jaxmodels.data.folders import files_below, is_hidden
from jaxmodels.data.formats.images import ENDINGS, open_image
from jaxmodels.data.normalize import Statistics, behind
from jaxmodels.data.pipeline import ArrayPipeline, Augment
from jaxmodels.data.unpack import Unreadable, reading

ANNOTATION = 16 << 20  # bytes of XML at most
FARTHEST = 1 << 24  # pixels: up to here float32 holds every one

Files = Mapping[str, Callable[[], bytes]]  # by the path behind the folder's or archive's own


def voc_folder(
    folder: str | os.PathLike[str] | Callable[[], Path],
    classes: Sequence[str],
    *,
    size: tuple[int, int],
    batch: int,
    split: str | None = None,
    seed: int | None = None,
    most: int = 100,
    augment: Sequence[Augment] = (),
    normalize: Statistics | None = None,
) -> ArrayPipeline:
    """Batches of "image" (float32, 0 to 1, size x 3), "boxes" (most x 4: y0 x0 y1 x1 in its pixels), "classes" (int32),
    "present" (1, or 0 for padding) and "index" (int32, the number of the image in the split).

    folder: with Annotations and the rest, or an archive of it (see data/archive.py), or a function that gives
    it on first use. classes: the names in the annotations that labels number; any other name is an error.
    split: the name of a list in ImageSets/Main; None takes every annotation, in the order of their names.
    most: boxes of an image, and an image with more is an error. Images are scaled to size, and held in memory
    as bytes. augment: see data/boxes.py. normalize: see data/normalize.py. Needs pillow.
    """

    def open() -> dict[str, np.ndarray]:
        where = folder() if callable(folder) else Path(folder)
        files = _in_archive(where) if is_archive(where) else _in_folder(where)
        names = _names(where, files, split)
        found = [_example(where, files, name, size, classes, most) for name in names]
        return {
            "image": np.stack([image for image, _, _ in found]),
            "boxes": np.stack([_filled(boxes, (most, 4), np.float32) for _, boxes, _ in found]),
            "classes": np.stack([_filled(classes, (most,), np.int32) for _, _, classes in found]),
            "present": np.stack(
                [_filled(np.ones(len(classes)), (most,), np.float32) for _, _, classes in found]
            ),
            "index": np.arange(len(names), dtype=np.int32),
        }

    spec = {
        "image": ((*size, 3), np.dtype(np.float32)),
        "boxes": ((most, 4), np.dtype(np.float32)),
        "classes": ((most,), np.dtype(np.int32)),
        "present": ((most,), np.dtype(np.float32)),
        "index": ((), np.dtype(np.int32)),
    }
    return ArrayPipeline(open, batch=batch, seed=seed, spec=spec, **behind(normalize, 3, _scale, augment))


def read_voc(text: bytes, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(boxes M4: y0 x0 y1 x1, classes M) of an annotation of Pascal VOC; classes number `names`. Empty boxes are left out.

    Declarations of a document type are refused: a few lines of entities can stand for gigabytes.
    """
    boxes, classes = [], []
    with reading("the annotation", "an XML document as of Pascal VOC", "Mend or replace it"):
        for found in _tree(text).iter("object"):
            name = found.findtext("name", "")
            if name not in names:
                raise Unreadable(
                    f"the annotation names a {reprlib.repr(name)}: got a class that is none of the given; expected one of "
                    f"{', '.join(names)}. Mend it or name the class"
                )
            box = [
                float(found.findtext(f"bndbox/{key}", "nothing")) for key in ("ymin", "xmin", "ymax", "xmax")
            ]
            if not all(abs(side) < FARTHEST for side in box):
                raise ValueError(f"a box {box}, whose sides are no places in a picture")
            if box[2] > box[0] and box[3] > box[1]:
                boxes.append(box)
                classes.append(names.index(name))
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int32)


def _tree(text: bytes) -> ElementTree.Element:
    """The root of an XML document; one that declares a document type, in whatever encoding, is refused on the way."""
    if len(text) > ANNOTATION:
        raise ValueError(f"{len(text):,} bytes, where {ANNOTATION:,} are the most")
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()

    def refuse(*declaration: Any) -> None:
        raise Unreadable(
            "the annotation declares a document type: got a DOCTYPE; expected plain XML, as Pascal VOC's. Remove the "
            "declaration"
        )

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda name, attributes: builder.start(name, attributes)
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(text, True)
    return builder.close()


def _in_folder(folder: Path) -> Files:
    if not (folder / "Annotations").is_dir():
        raise FileNotFoundError(
            f"{folder}: got no folder Annotations in it; expected that of Pascal VOC. Check the path"
        )
    there = [name for name in ("Annotations", "JPEGImages", "ImageSets/Main") if (folder / name).is_dir()]
    parts = [path for name in there for path in files_below(folder / name, pattern="*")]
    return {path.relative_to(folder).as_posix(): path.read_bytes for path in sorted(parts)}


def _in_archive(archive: Path) -> Files:
    """The same; what lies before the folder Annotations, such as one of the archive's name, is passed over."""
    held = members(archive, lambda name: name.lower().endswith((".xml", ".txt", *ENDINGS)))
    found: dict[str, Callable[[], bytes]] = {}
    for name, data in sorted(held.items()):
        parts = PurePosixPath(name).parts
        at = next(
            (i for i, part in enumerate(parts) if part in ("Annotations", "JPEGImages", "ImageSets")), None
        )
        if at is not None and not any(map(is_hidden, parts)):
            found["/".join(parts[at:])] = lambda data=data: data  # type: ignore[misc]
    if not any(name.startswith("Annotations/") for name in found):
        raise ValueError(
            f"{archive}: got no Annotations/*.xml in it; expected those of Pascal VOC. Pack that folder"
        )
    return found


def _names(where: Path, files: Files, split: str | None) -> list[str]:
    """The names of the images: those of a list, or all."""
    if split is None:
        return [
            PurePosixPath(name).stem
            for name in files
            if name.startswith("Annotations/") and name.endswith(".xml")
        ]
    lists = {PurePosixPath(name).stem: name for name in files if name.startswith("ImageSets/Main/")}
    if split not in lists:
        known = ", ".join(lists) or "none"
        raise ValueError(
            f"{where}: got split={split!r}; expected one of the lists in ImageSets/Main, {known}. Name one"
        )
    names = files[lists[split]]().decode().split()
    if not names:
        raise ValueError(
            f"{where}: got an empty list {lists[split]}; expected names of images. Fill it, or take another"
        )
    return names


def _example(
    where: Path, files: Files, name: str, size: tuple[int, int], classes: Sequence[str], most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image as bytes, boxes in its pixels, classes) of one image."""
    from PIL import Image

    note, image = f"Annotations/{name}.xml", next((f for f in _images(name) if f in files), None)
    if note not in files or image is None:
        lacks = note if note not in files else f"JPEGImages/{name}.jpg"
        raise ValueError(f"{where}: got no {lacks}; expected an annotation and an image of each name. Add it")
    picture = open_image(io.BytesIO(files[image]()))
    try:
        boxes, numbers = read_voc(files[note](), classes)
    except ValueError as error:
        raise ValueError(f"{where}, {note}: {error}") from error
    if len(boxes) > most:
        raise ValueError(f"{where}, {note}: got {len(boxes)} boxes; expected at most {most}. Raise most=")
    scale = np.array([size[0] / picture.height, size[1] / picture.width] * 2)
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR)), boxes * scale, numbers


def _images(name: str) -> list[str]:
    return [f"JPEGImages/{name}{end}" for ending in ENDINGS for end in (ending, ending.upper())]


def _filled(values: np.ndarray, shape: tuple[int, ...], kind: Any) -> np.ndarray:
    out = np.zeros(shape, kind)
    out[: len(values)] = values
    return out


def _scale(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, "image": batch["image"].astype(np.float32) * np.float32(1 / 255)}
