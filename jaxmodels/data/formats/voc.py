"""Images with boxes as in Pascal VOC: Annotations/*.xml, JPEGImages/* and ImageSets/Main/<split>.txt."""

from __future__ import annotations

import io
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from jaxmodels.data.archive import is_archive, members
from jaxmodels.data.folders import files_below, is_hidden
from jaxmodels.data.formats.images import ENDINGS, open_image
from jaxmodels.data.normalize import Statistics, behind, from_bytes
from jaxmodels.data.pipeline import ArrayPipeline, Augment
from jaxmodels.data.unpack import Unreadable, reading

ANNOTATION = 16 << 20  # the most bytes of an annotation
FARTHEST = 1 << 24  # pixels: up to here float32 holds every whole number

Files = Mapping[str, Callable[[], bytes]]  # by the path inside the folder or archive


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
    """Batches of images with boxes.

    "image" (float32, 0 to 1, size x 3), "boxes" (float32, most x 4: y0 x0 y1 x1 in the image's pixels),
    "classes" (int32, most), "present" (float32, most: 1, or 0 for padding) and "index" (int32, of the image
    in the split). Images are scaled to size, and held in memory as bytes. Needs pillow.

    folder: with Annotations and the rest, or an archive of it (see data/archive.py), or a function that
        returns either, called on first use.
    classes: the names in the annotations, in the order of the labels; any other name is an error.
    split: the name of a list in ImageSets/Main; None takes every annotation, in the order of their names.
    most: boxes of an image; an image with more is an error.
    augment: see data/augment_boxes.py. normalize: see data/normalize.py.
    """

    def open() -> dict[str, np.ndarray]:
        path = folder() if callable(folder) else Path(folder)
        files = _in_archive(path) if is_archive(path) else _in_folder(path)
        names = _names(path, files, split)
        images, boxes, labels, present = [], [], [], []
        for name in names:
            image, boxes_M4, classes_M = _example(path, files, name, size, classes, most)
            images.append(image)
            boxes.append(_padded(boxes_M4, (most, 4), np.float32))
            labels.append(_padded(classes_M, (most,), np.int32))
            present.append(_padded(np.ones(len(classes_M)), (most,), np.float32))
        return {
            "image": np.stack(images),
            "boxes": np.stack(boxes),
            "classes": np.stack(labels),
            "present": np.stack(present),
            "index": np.arange(len(names), dtype=np.int32),
        }

    spec = {
        "image": ((*size, 3), np.dtype(np.float32)),
        "boxes": ((most, 4), np.dtype(np.float32)),
        "classes": ((most,), np.dtype(np.int32)),
        "present": ((most,), np.dtype(np.float32)),
        "index": ((), np.dtype(np.int32)),
    }
    return ArrayPipeline(open, batch=batch, seed=seed, spec=spec, **behind(normalize, 3, from_bytes, augment))


def read_voc(text: bytes, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(boxes M4: y0 x0 y1 x1, classes M) of an annotation of Pascal VOC; classes are indices into `names`.

    Empty boxes are skipped. A declaration of a document type is refused: a few lines of entities can expand
    to gigabytes.
    """
    boxes, classes = [], []
    with reading("the annotation", "an XML document as of Pascal VOC", "Correct or replace it"):
        for node in _tree(text).iter("object"):
            name = node.findtext("name", "")
            if name not in names:
                raise Unreadable(
                    f"the annotation: got the class {reprlib.repr(name)}; expected one of "
                    f"{', '.join(names)}. Correct it, or add the class"
                )
            box = [
                float(node.findtext(f"bndbox/{key}", "nothing")) for key in ("ymin", "xmin", "ymax", "xmax")
            ]
            if not all(abs(side) < FARTHEST for side in box):
                raise ValueError(f"a box {box}, whose sides are not inside an image")
            if box[2] > box[0] and box[3] > box[1]:
                boxes.append(box)
                classes.append(names.index(name))
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int32)


def _tree(text: bytes) -> ElementTree.Element:
    """The root of an XML document; a declaration of a document type, in any encoding, raises Unreadable."""
    if len(text) > ANNOTATION:
        raise ValueError(f"{len(text):,} bytes, more than {ANNOTATION:,}")
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()

    def refuse(*declaration: Any) -> None:
        raise Unreadable(
            "the annotation declares a document type: got a DOCTYPE; expected plain XML, as of Pascal VOC. "
            "Remove the declaration"
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
    paths: list[Path] = []
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        if (folder / name).is_dir():
            paths += files_below(folder / name, pattern="*")
    return {path.relative_to(folder).as_posix(): path.read_bytes for path in sorted(paths)}


def _in_archive(archive: Path) -> Files:
    """The same; folders above Annotations, such as one of the archive's name, are skipped."""
    contents = members(archive, lambda name: name.lower().endswith((".xml", ".txt", *ENDINGS)))
    files: dict[str, Callable[[], bytes]] = {}
    for name, data in sorted(contents.items()):
        parts = PurePosixPath(name).parts
        tops = [i for i, part in enumerate(parts) if part in ("Annotations", "JPEGImages", "ImageSets")]
        if tops and not any(map(is_hidden, parts)):
            files["/".join(parts[tops[0] :])] = partial(bytes, data)
    if not any(name.startswith("Annotations/") for name in files):
        raise ValueError(
            f"{archive}: got no Annotations/*.xml in it; expected those of Pascal VOC. Pack that folder"
        )
    return files


def _names(path: Path, files: Files, split: str | None) -> list[str]:
    """The names of the images: those of a split, or all."""
    if split is None:
        annotations = [name for name in files if name.startswith("Annotations/") and name.endswith(".xml")]
        return [PurePosixPath(name).stem for name in annotations]
    lists = {PurePosixPath(name).stem: name for name in files if name.startswith("ImageSets/Main/")}
    if split not in lists:
        known = ", ".join(lists) or "none"
        raise ValueError(
            f"{path}: got split={split!r}; expected one of the lists in ImageSets/Main, {known}. Name one"
        )
    names = files[lists[split]]().decode().split()
    if not names:
        raise ValueError(
            f"{path}: got an empty list {lists[split]}; expected names of images. Fill it, or choose another"
        )
    return names


def _example(
    path: Path, files: Files, name: str, size: tuple[int, int], classes: Sequence[str], most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image as bytes, boxes in its pixels, classes) of one image."""
    from PIL import Image

    annotation = f"Annotations/{name}.xml"
    if annotation not in files:
        raise ValueError(f"{path}: got no {annotation}; expected an annotation of each name. Add it")
    source = next((file for file in _images(name) if file in files), None)
    if source is None:
        raise ValueError(f"{path}: got no JPEGImages/{name}.jpg; expected an image of each name. Add it")
    image = open_image(io.BytesIO(files[source]()))
    try:
        boxes, labels = read_voc(files[annotation](), classes)
    except ValueError as error:
        raise ValueError(f"{path}, {annotation}: {error}") from error
    if len(boxes) > most:
        raise ValueError(
            f"{path}, {annotation}: got {len(boxes)} boxes; expected at most {most}. Raise most="
        )
    scale = np.array([size[0] / image.height, size[1] / image.width] * 2)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)), boxes * scale, labels


def _images(name: str) -> list[str]:
    return [f"JPEGImages/{name}{end}" for ending in ENDINGS for end in (ending, ending.upper())]


def _padded(values: np.ndarray, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    out = np.zeros(shape, dtype)
    out[: len(values)] = values
    return out
