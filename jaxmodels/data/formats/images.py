"""Images as arrays: single files, and folders and archives of images with one folder for each class.

Dimensions: H W C image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data.archive import Member, opened
from jaxmodels.data.broken import OnBroken
from jaxmodels.data.example_loader import Change
from jaxmodels.data.folders import existing_file
from jaxmodels.data.formats.class_folder import ClassFolder
from jaxmodels.data.libraries import pillow
from jaxmodels.data.normalize import Normalize, Statistics
from jaxmodels.data.order import Remainder
from jaxmodels.data.pipeline import Augment
from jaxmodels.data.split import Part
from jaxmodels.data.unpack import reading

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")  # the decoders that a file may call for
PIXELS = 50_000_000  # a larger image is refused before it is decoded, unless pixels= allows it
GREY16 = ("I;16", "I;16L", "I;16B", "I;16N")  # pillow's names for 16-bit grey
TRANSPOSED = (5, 6, 7, 8)  # orientations of EXIF that exchange height and width
ORIENTATION = 0x0112  # the tag of EXIF


def image_folder(
    folder: str | os.PathLike[str] | Part,
    *,
    size: int | tuple[int, int],
    batch: int,
    seed: int | None = None,
    area: tuple[float, float] | None = None,
    augment: Change | None = None,
    channels: Literal[1, 3] = 3,
    classes: Sequence[str] | None = None,
    normalize: Statistics | None = None,
    remainder: Remainder | None = None,
    workers: int = 0,
    threads: int | None = None,
    pixels: int = PIXELS,
    on_broken: OnBroken = "raise",
) -> ImageFolder:
    """The images in folder/<class>/ and below it, as "image" (float32, 0 to 1, HWC) and "label" (int32).

    folder may be a .zip or .tar archive (see data/archive.py), whose files are held in memory and never
    unpacked to disk, or a part of a folder or archive, as data/split.py makes it. Labels are indices into
    `.classes`: the classes given, else the folders in the order of their names; a folder called test, val and
    so on beside train has the classes of train, and may lack some. A folder that is no class is refused. A
    run learns the classes once (see runs/learned.py). data/folders.py says which files are skipped. Needs
    pillow.

    size: height and width, or one number for both. An image is scaled until it covers that size, and cropped
        in the middle.
    area: two shares; then a random crop, of a share of the image's area between them and of an aspect ratio
        of at most 4 to 3, is scaled to size (arXiv:1409.4842, section 6).
    channels: 3 for RGB, 1 for grey. 16-bit grey keeps its precision, transparency is dropped, and of an
        animation the first frame is taken.
    pixels: the most that an image may have, which bounds the memory that a hostile file can take.
    augment: see each. normalize: see data/normalize.py. on_broken, workers and the rest: see GrainPipeline.
    """
    choices.check("image_folder", "channels", channels, (1, 3))
    height, width = (size, size) if isinstance(size, int) else size
    if area is not None and not 0 < area[0] <= area[1] <= 1:
        raise ValueError(
            f"image_folder: got area={area}; expected two shares above 0 and up to 1, the smaller first. "
            "Change it"
        )
    decode = _Decode(height, width, channels, pixels)
    last = None if normalize is None else Normalize.of(normalize, channels)
    load: Callable[..., dict[str, Any]]
    change: Callable[..., Any] | None = augment
    if last is not None and augment is not None:
        change = _Both(augment, last)
    if area is not None:
        load, change = _unread, _RandomCrop(decode, area, change or last)
    elif last is not None and augment is None:
        load = _Both(decode, last)
    else:
        load = decode
    return ImageFolder(
        folder,
        classes,
        batch=batch,
        seed=seed,
        remainder=remainder,
        load=load,
        augment=change,
        workers=workers,
        threads=threads,
        on_broken=on_broken,
        spec={"image": ((height, width, channels), np.dtype(np.float32)), "label": ((), np.dtype(np.int32))},
    )


@dataclass(frozen=True)
class each:
    """Changes of data/augment.py for single examples: image_folder(…, augment=each([flip, color()]))."""

    changes: Sequence[Augment]

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The example with its image changed."""
        batch = {name: np.asarray(x)[None] for name, x in example.items()}
        keys_B = rng.integers(2**64, size=1, dtype=np.uint64)
        for change in self.changes:
            batch = change(batch, keys_B)
        return {name: x[0] for name, x in batch.items()}


class ImageFolder(ClassFolder):
    """See image_folder."""

    endings = ENDINGS


@dataclass(frozen=True)
class _Both:
    """One function of an example, then the normalization."""

    first: Callable[..., Any]
    last: Normalize

    def __call__(self, *arguments: Any) -> dict[str, Any]:
        return self.last(dict(self.first(*arguments)))


def _unread(item: Any) -> dict[str, Any]:
    return {"item": item}


@dataclass(frozen=True)
class _Decode:
    """(path, label) to an example."""

    height: int
    width: int
    channels: int
    pixels: int

    def __call__(self, item: tuple[Any, int]) -> dict[str, Any]:
        path, label = item
        image = _decode(_source(path), self.channels, (self.width, self.height), self.pixels)
        return {"image": _fitted(image, self.height, self.width, self.channels), "label": np.int32(label)}


@dataclass(frozen=True)
class _RandomCrop:
    """A random crop of the image of {"item": (path, label)}; then any further change."""

    decode: _Decode
    area: tuple[float, float]
    then: Change | None

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> Any:
        from PIL import Image

        (path, label), size = example["item"], (self.decode.width, self.decode.height)
        least = round(size[0] / self.area[0] ** 0.5), round(size[1] / self.area[0] ** 0.5)
        image = _decode(_source(path), self.decode.channels, least, self.decode.pixels)
        share = rng.uniform(*self.area)
        ratio = math.exp(rng.uniform(-1, 1) * math.log(4 / 3)) * size[0] / size[1]
        width = min(image.width, (share * image.width * image.height * ratio) ** 0.5)
        height = min(image.height, (share * image.width * image.height / ratio) ** 0.5)
        left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
        box = (left, top, left + width, top + height)
        crop_HWC = _array(image.resize(size, Image.Resampling.BILINEAR, box=box), self.decode.channels)
        example = {"image": crop_HWC, "label": np.int32(label)}
        return self.then(example, rng) if self.then is not None else example


def _source(path: Any) -> Any:
    return opened(path) if isinstance(path, Member) else path  # a path, because pillow's errors name it


def read_image(
    path: str | os.PathLike[str],
    size: int | tuple[int, int],
    *,
    channels: Literal[1, 3] = 3,
    normalize: Statistics | None = None,
    pixels: int = PIXELS,
) -> np.ndarray:
    """An image file as image_folder prepares it: float32, 0 to 1 or normalized, HWC, of this size."""
    choices.check("read_image", "channels", channels, (1, 3))
    height, width = (size, size) if isinstance(size, int) else size
    image_HWC = _fitted(_decode_file(path, channels, (width, height), pixels), height, width, channels)
    if normalize is None:
        return image_HWC
    return Normalize.of(normalize, channels)({"image": image_HWC})["image"]


def open_image(path: str | os.PathLike[str] | BinaryIO, *, pixels: int = PIXELS) -> Any:
    """An image file as pillow's image in its own size: 8-bit RGB, upright."""
    image = _decode_file(path, 3, None, pixels)
    return image.point(lambda x: x + 0.5).convert("L").convert("RGB") if image.mode == "F" else image


def _decode_file(
    path: str | os.PathLike[str] | BinaryIO, channels: int, least: tuple[int, int] | None, pixels: int
) -> Any:
    """Like _decode, with errors that name the file; those of a folder come from GrainPipeline."""
    name = str(path) if isinstance(path, str | os.PathLike) else "the image"
    pillow()  # a missing library is reported before a missing file
    if isinstance(path, str | os.PathLike) and not Path(path).exists():
        existing_file(path, "an image")
    formats = ", ".join(FORMATS)
    with reading(f"{name} cannot be read as an image", f"one of {formats}", "Convert or replace it"):
        return _decode(path, channels, least, pixels)


def _decode(
    path: str | os.PathLike[str] | BinaryIO,
    channels: int,
    least: tuple[int, int] | None,
    pixels: int = PIXELS,
) -> Any:
    """The image of a file in this many channels; where least is given, a JPEG is decoded no larger than
    needed.

    The mode is RGB or L, or F with values from 0 to 255 for 16-bit grey.
    """
    PIL = pillow()
    mode = "RGB" if channels == 3 else "L"
    if PIL.Image.MAX_IMAGE_PIXELS is not None:  # above it pillow warns, and at twice it refuses
        PIL.Image.MAX_IMAGE_PIXELS = max(PIL.Image.MAX_IMAGE_PIXELS, pixels)
    try:
        file = PIL.Image.open(path, formats=FORMATS)
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise ValueError(f"{error}, more than pixels={pixels:,}") from error
    with file:
        if file.width * file.height > pixels:
            raise ValueError(f"an image of {file.width} x {file.height} pixels, more than pixels={pixels:,}")
        transposed = file.getexif().get(ORIENTATION) in TRANSPOSED
        if least is not None:  # JPEG can be decoded at 1/2, 1/4 or 1/8 of its size
            file.draft(mode, least[::-1] if transposed else least)
        if file.mode in GREY16 or (file.mode == "I" and file.format in ("PNG", "PPM")):
            grey = PIL.Image.fromarray(np.asarray(file).astype(np.float32) * np.float32(255 / 65535))
            grey.getexif()[ORIENTATION] = file.getexif().get(ORIENTATION, 1)
            return PIL.ImageOps.exif_transpose(grey)
        if file.mode[0] in "IF":
            raise ValueError(
                f"pixels of mode {file.mode}, whose range is unknown, where 8 bits or 16-bit grey can be read"
            )
        upright = PIL.ImageOps.exif_transpose(file)
        if file.mode == "P" and "transparency" in file.info:  # straight to RGB, pillow warns of some palettes
            upright = upright.convert("RGBA")
        return upright.convert(mode)


def _fitted(image: Any, height: int, width: int, channels: int) -> np.ndarray:
    """The image scaled until it covers the size, and cropped in the middle; HWC."""
    PIL = pillow()
    return _array(PIL.ImageOps.fit(image, (width, height), PIL.Image.Resampling.BILINEAR), channels)


def _array(image: Any, channels: int) -> np.ndarray:
    """HWC, float32 from 0 to 1."""
    image_HWC = np.asarray(image, np.float32).reshape(image.height, image.width, -1) / np.float32(255)
    return image_HWC if image_HWC.shape[2] == channels else np.repeat(image_HWC, channels, 2)
