"""Folders of pictures, one folder for each class, decoded as they are needed.

Dimensions: H W C image.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from jaxmodels.data.grain_source import Change, GrainPipeline
from jaxmodels.data.order import Remainder

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")  # the decoders that a file may call for
PIXELS = 50_000_000  # a picture of more is refused before it is unpacked


def image_folder(
    folder: str | os.PathLike[str],
    *,
    size: int | tuple[int, int],
    batch: int,
    seed: int | None = None,
    augment: Change | None = None,
    channels: Literal[1, 3] = 3,
    remainder: Remainder | None = None,
    workers: int = 0,
    threads: int | None = None,
) -> ImageFolder:
    """The pictures in folder/<class>/ and below it, as "image" (float32, 0 to 1, HWC) and "label" (int32).

    Labels number the classes in the order of their names, `.classes`. A picture is scaled until it covers size (height
    and width, or one number for both), and what then protrudes is cut off evenly. channels: 3 for RGB, 1 for grey. Names
    that begin with a dot are passed over. augment, workers and the rest: see GrainPipeline. Needs pillow.
    """
    height, width = (size, size) if isinstance(size, int) else size
    return ImageFolder(
        Path(folder),
        batch=batch,
        seed=seed,
        remainder=remainder,
        load=_Decode(height, width, channels),
        augment=augment,
        workers=workers,
        threads=threads,
        spec={"image": ((height, width, channels), np.dtype(np.float32)), "label": ((), np.dtype(np.int32))},
    )


class ClassFolder(GrainPipeline):
    """Files in folder/<class>/, loaded from (path, label)."""

    endings: tuple[str, ...] = ()

    def __init__(self, folder: Path, **options: Any):
        super().__init__(lambda: self._found[1], **options)
        self.folder = folder

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, in the order of their labels."""
        return self._found[0]

    @cached_property
    def _found(self) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
        return find(self.folder, self.endings)


class ImageFolder(ClassFolder):
    """See image_folder."""

    endings = ENDINGS


def find(folder: Path, endings: tuple[str, ...]) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    """The names of the folders in `folder`, sorted, and the files below them as (path, number of the folder)."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; wanted one with a folder for each class; check the path")
    classes = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not classes:
        raise ValueError(f"{folder} holds no folders; wanted one for each class, with its files; move the files into some")
    items = []
    for label, name in enumerate(classes):
        files = list(files_below(folder / name, lambda path: path.suffix.lower() in endings))
        if not files:
            raise ValueError(
                f"the class {folder / name} holds no file that ends in {' '.join(endings)}; add some or remove the folder"
            )
        items += [(str(path), label) for path in files]
    return classes, items


def files_below(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """The wanted files in the folder and its folders, sorted by path, without those whose path has a part that is hidden."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if wanted(path) and path.is_file())


@dataclass(frozen=True)
class _Decode:
    """(path, label) to an example."""

    height: int
    width: int
    channels: int

    def __call__(self, item: tuple[str, int]) -> dict[str, Any]:
        path, label = item
        whole = _decode(path, self.channels, (self.width, self.height))
        return {"image": _fitted(whole, self.height, self.width), "label": np.int32(label)}


def picture(path: str | os.PathLike[str], size: int | tuple[int, int], *, channels: Literal[1, 3] = 3) -> np.ndarray:
    """A file's picture as image_folder prepares it: float32, 0 to 1, HWC, of this height and width."""
    height, width = (size, size) if isinstance(size, int) else size
    return _fitted(_named(path, channels, (width, height)), height, width)


def open_picture(path: str | os.PathLike[str] | BinaryIO) -> Any:
    """A file's picture in its own size, by pillow, as RGB and the right way up."""
    return _named(path, 3, None)


def _named(path: str | os.PathLike[str] | BinaryIO, channels: int, least: tuple[int, int] | None) -> Any:
    """As _decode, with errors that say which file; a folder of many has its own way."""
    try:
        return _decode(path, channels, least)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}; wanted a picture; check the path") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error}); wanted one of {', '.join(FORMATS)}") from error


def _decode(path: str | os.PathLike[str] | BinaryIO, channels: int, least: tuple[int, int] | None) -> Any:
    """The picture of a file in this many channels; of a JPEG, where least is given, unpacked no larger than needed."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("decoding pictures needs pillow; pip install 'jaxmodels[data]'") from error
    mode = "RGB" if channels == 3 else "L"
    with Image.open(path, formats=FORMATS) as file:
        if file.width * file.height > PIXELS:
            raise ValueError(f"{file.width} x {file.height} pixels; wanted at most {PIXELS:,}; scale it down beforehand")
        if file.mode[0] in "IF":
            raise ValueError(f"its pixels are of kind {file.mode}; wanted 8 bits a channel; convert it beforehand")
        if least is not None:
            file.draft(mode, least)  # JPEG can be unpacked at 1/2, 1/4 or 1/8 of its size
        return ImageOps.exif_transpose(file).convert(mode)


def _fitted(whole: Any, height: int, width: int) -> np.ndarray:
    """Scaled until it covers the size, and what then protrudes cut off evenly."""
    from PIL import Image, ImageOps

    fitted = ImageOps.fit(whole, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(fitted, np.float32).reshape(height, width, -1) / np.float32(255)
