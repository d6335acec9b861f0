"""Folders and archives of pictures, one folder for each class, decoded as they are needed.

Dimensions: H W C image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data.archive import Member, is_archive, members, opened
from jaxmodels.data.fingerprint import of_files
from jaxmodels.data.folders import files_below, is_hidden
from jaxmodels.data.grain_pipeline import Change, GrainPipeline, OnBroken
from jaxmodels.data.normalize import Normalize, Statistics
from jaxmodels.data.order import Remainder
from jaxmodels.data.pipeline import Augment
from jaxmodels.data.split import Part
from jaxmodels.data.unpack import reading
from jaxmodels.runs.learned import OtherData, learned, portable_name, remembering

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")  # the decoders that a file may call for
NOT_TRAINING = (
    "test",
    "val",
    "valid",
    "validation",
    "dev",
    "eval",
)  # folders beside train/ that have its classes
PIXELS = 50_000_000  # a picture of more is refused before it is unpacked, unless pixels= allows it
GREY16 = ("I;16", "I;16L", "I;16B", "I;16N")  # pillow's names for grey of 16 bits
TURNED = (5, 6, 7, 8)  # orientations of EXIF whose rows are the picture's columns


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
    """The pictures in folder/<class>/ and below it, as "image" (float32, 0 to 1, HWC) and "label" (int32).

    folder may be a .zip or .tar archive (see data/archive.py), whose files are held in memory and never
    unpacked to disk; or a part of either, as data/split.py makes it. Labels number the classes, `.classes`:
    those given, else the folders in the order of their names; of test/, val/ and so on beside train/ those of
    train/, so that a class may be missing there. A folder that is no class is refused. In a run they are
    learned once (see data/learned.py). What is passed over: see data/folders.py. Needs pillow.

    size: height and width, or one number for both. A picture is scaled until it covers that, and what then
    protrudes is cut off evenly. area: two shares; then a random part of the picture, of a share of its area
    between them and of sides in a ratio of at most 4 to 3, is scaled to size (arXiv:1409.4842, section 6).
    channels: 3 for RGB, 1 for grey; grey of 16 bits keeps them, transparency is left out, and of a film the
    first picture is taken. pixels: those that a picture may have, which bounds the memory that a hostile file
    can take. augment: see each. normalize: see data/normalize.py. on_broken, workers and the rest: see
    GrainPipeline.
    """
    choices.check("image_folder", "channels", channels, (1, 3))
    height, width = (size, size) if isinstance(size, int) else size
    decode = _Decode(height, width, channels, pixels)
    last = None if normalize is None else Normalize.of(normalize, channels)
    random = augment if last is None or augment is None else _Both(augment, last)
    if area is not None and not 0 < area[0] <= area[1] <= 1:
        raise ValueError(
            f"image_folder: came area={area}; wanted two shares, above 0, up to 1, the smaller first: change it"
        )
    return ImageFolder(
        folder,
        classes,
        batch=batch,
        seed=seed,
        remainder=remainder,
        load=_unread
        if area is not None
        else decode
        if last is None or augment is not None
        else _Both(decode, last),
        augment=random if area is None else _Part(decode, area, random or last),
        workers=workers,
        threads=threads,
        on_broken=on_broken,
        spec={"image": ((height, width, channels), np.dtype(np.float32)), "label": ((), np.dtype(np.int32))},
    )


@dataclass(frozen=True)
class each:
    """Changes of data/augment.py for examples that come one by one: image_folder(…, augment=each([flip, color()]))."""

    changes: Sequence[Augment]

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The example with its image changed."""
        batch = {name: np.asarray(x)[None] for name, x in example.items()}
        keys_B = rng.integers(2**64, size=1, dtype=np.uint64)
        for change in self.changes:
            batch = change(batch, keys_B)
        return {name: x[0] for name, x in batch.items()}


class ClassFolder(GrainPipeline):
    """Files in folder/<class>/, loaded from (path, label)."""

    endings: tuple[str, ...] = ()

    def __init__(
        self, folder: str | os.PathLike[str] | Part, classes: Sequence[str] | None = None, **options: Any
    ):
        super().__init__(self._items, **options)
        self._part = folder if isinstance(folder, Part) else None
        folder = folder.folder if isinstance(folder, Part) else Path(folder)
        self.folder = folder
        self._given = classes
        parts = folder.name.partition(".")
        whose = folder.with_name("".join(["train", *parts[1:]])) if _follows(folder) else folder
        self._learned = remembering(partial(learned, f"classes of {portable_name(whose)}", self._names))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, in the order of their labels."""
        return tuple(self._learned() if self._given is None else self._given)

    def _names(self) -> Sequence[str]:
        train = training(self.folder)
        return _found(self.folder if train is None else train, self.endings)[0]

    @cached_property
    def _found(self) -> tuple[tuple[str, ...], list[tuple[Any, int]]]:
        known = self.classes if _follows(self.folder) or self._given is not None else ()
        return _found(self.folder, self.endings, known)

    def fingerprint(self) -> str:
        """Changes when a file, its content or its class does; see data/fingerprint.py."""
        here, items = self._found
        in_archive = [(f"{here[k]}/{x.name}", x.data) for x, k in items if isinstance(x, Member)]
        on_disk = [
            (Path(os.path.relpath(x, self.folder)).as_posix(), x)
            for x, _ in items
            if not isinstance(x, Member)
        ]
        return of_files([*in_archive, *on_disk])

    def _items(self) -> list[tuple[Any, int]]:
        """The files, each with the number of its class among `classes`."""
        here, items = self._found
        if unknown := [name for name in here if name not in self.classes]:
            raise OtherData(
                f"{self.folder}: got a folder {unknown[0]!r}; expected folders of the classes {_some(self.classes)} alone. "
                "Give it the name of its class, move it away, or say classes="
            )
        chosen = items if self._part is None else self._part.of(items)
        return [(item, self.classes.index(here[label])) for item, label in chosen]


class ImageFolder(ClassFolder):
    """See image_folder."""

    endings = ENDINGS


def training(folder: Path) -> Path | None:
    """The folder or archive called train beside one that is called test or the like; None where there is none."""
    _, dot, ending = folder.name.partition(".")
    beside = [folder.with_name(f"{name}{dot}{ending}") for name in ("train", "training")]
    return next((path for path in beside if path.exists()), None) if _follows(folder) else None


def _follows(folder: Path) -> bool:
    """Whether this is a part of a data set that has the classes of its training part."""
    return folder.name.partition(".")[0].lower() in NOT_TRAINING


def _found(
    folder: Path, endings: tuple[str, ...], known: Sequence[str] = ()
) -> tuple[tuple[str, ...], list[tuple[Any, int]]]:
    return inside(folder, endings, known) if is_archive(folder) else find(folder, endings)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (" …" if len(names) > 12 else "")


def find(folder: Path, endings: tuple[str, ...]) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    """The names of the folders in `folder`, sorted, and the files below them as (path, number of the folder)."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; wanted one with a folder for each class; check the path"
        )
    classes = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name)))
    if not classes:
        raise ValueError(
            f"{folder} holds no folders; wanted one for each class, with its files; move the files into some"
        )
    items = []
    for label, name in enumerate(classes):
        files = files_below(folder / name, endings=endings)
        if not files:
            raise ValueError(
                f"the class {folder / name} holds no file that ends in {' '.join(endings)}; add some or remove the folder"
            )
        items += [(str(path), label) for path in files]
    return classes, items


def inside(
    archive: Path, endings: tuple[str, ...], known: Sequence[str] = ()
) -> tuple[tuple[str, ...], list[tuple[Member, int]]]:
    """As find, of an archive; folders that all files share, such as one of the archive's name, are passed over.

    known: classes, of which a single one may be there.
    """
    files = [file for file in files_inside(archive, endings) if "/" in file.name]
    folders = [file.parts[:-1] for file in files]
    levels = list(enumerate(zip(*folders, strict=False)))
    shared = next((i for i, level in levels if set(level) <= set(known) or len(set(level)) > 1), math.inf)
    if not isinstance(shared, int):
        raise ValueError(
            f"{archive} has {len(files)} files that end in {' '.join(endings)}, not all of them in a class's folder; wanted "
            "two or more such folders with the files in them: pack it anew"
        )
    classes = tuple(sorted({parts[shared] for parts in folders}))
    items = [(file, classes.index(parts[shared])) for file, parts in zip(files, folders, strict=True)]
    return classes, sorted(items, key=lambda item: item[1])


def files_inside(archive: Path, endings: tuple[str, ...]) -> list[Member]:
    """The files of an archive that are data, by the rule of data/folders.py and in its order."""

    def wanted(name: str) -> bool:
        return name.lower().endswith(endings) and not any(
            is_hidden(part) for part in name.split("/") if part != "."
        )

    return sorted(
        (Member(name, data) for name, data in members(archive, wanted).items()), key=lambda file: file.parts
    )


@dataclass(frozen=True)
class _Both:
    """One function of an example, then the normalisation."""

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
        whole = _decode(_opened(path), self.channels, (self.width, self.height), self.pixels)
        return {"image": _fitted(whole, self.height, self.width, self.channels), "label": np.int32(label)}


@dataclass(frozen=True)
class _Part:
    """A random part of the picture of {"item": (path, label)}; then whatever else changes it."""

    decode: _Decode
    area: tuple[float, float]
    then: Change | None

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> Any:
        from PIL import Image

        (path, label), size = example["item"], (self.decode.width, self.decode.height)
        least = round(size[0] / self.area[0] ** 0.5), round(size[1] / self.area[0] ** 0.5)
        whole = _decode(_opened(path), self.decode.channels, least, self.decode.pixels)
        share, shape = (
            rng.uniform(*self.area),
            math.exp(rng.uniform(-1, 1) * math.log(4 / 3)) * size[0] / size[1],
        )
        width = min(whole.width, (share * whole.width * whole.height * shape) ** 0.5)
        height = min(whole.height, (share * whole.width * whole.height / shape) ** 0.5)
        left, top = rng.uniform(0, whole.width - width), rng.uniform(0, whole.height - height)
        box = (left, top, left + width, top + height)
        image = _array(whole.resize(size, Image.Resampling.BILINEAR, box=box), self.decode.channels)
        example = {"image": image, "label": np.int32(label)}
        return self.then(example, rng) if self.then is not None else example


def _opened(path: Any) -> Any:
    return opened(path) if isinstance(path, Member) else path  # a path: pillow's errors name it


def read_image(
    path: str | os.PathLike[str],
    size: int | tuple[int, int],
    *,
    channels: Literal[1, 3] = 3,
    normalize: Statistics | None = None,
    pixels: int = PIXELS,
) -> np.ndarray:
    """A file's picture as image_folder prepares it: float32, 0 to 1 or normalised, HWC, of this height and width."""
    choices.check("read_image", "channels", channels, (1, 3))
    height, width = (size, size) if isinstance(size, int) else size
    image = _fitted(_named(path, channels, (width, height), pixels), height, width, channels)
    return image if normalize is None else Normalize.of(normalize, channels)({"image": image})["image"]


def open_image(path: str | os.PathLike[str] | BinaryIO, *, pixels: int = PIXELS) -> Any:
    """A file's picture in its own size, by pillow, as RGB of 8 bits and the right way up."""
    whole = _named(path, 3, None, pixels)
    return whole.point(lambda x: x + 0.5).convert("L").convert("RGB") if whole.mode == "F" else whole


def _named(
    path: str | os.PathLike[str] | BinaryIO, channels: int, least: tuple[int, int] | None, pixels: int
) -> Any:
    """As _decode, with errors that say which file; a folder of many has its own way."""
    name = str(path) if isinstance(path, str | os.PathLike) else "the picture"
    _pillow()  # its absence is said first
    if isinstance(path, str | os.PathLike) and not Path(path).exists():
        raise FileNotFoundError(
            f"there is no file {name}: got its path; expected that of a picture. Check the path"
        )
    with reading(
        f"{name} cannot be read as a picture", f"one of {', '.join(FORMATS)}", "Convert or replace it"
    ):
        return _decode(path, channels, least, pixels)


def _pillow() -> tuple[Any, Any]:
    """Pillow's Image and ImageOps."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("decoding pictures needs pillow; pip install 'jaxmodels[data]'") from error
    return Image, ImageOps


def _decode(
    path: str | os.PathLike[str] | BinaryIO,
    channels: int,
    least: tuple[int, int] | None,
    pixels: int = PIXELS,
) -> Any:
    """The picture of a file in this many channels; of a JPEG, where least is given, unpacked no larger than needed.

    The mode is RGB or L, or F with values from 0 to 255 for grey of 16 bits.
    """
    Image, ImageOps = _pillow()
    mode = "RGB" if channels == 3 else "L"
    if Image.MAX_IMAGE_PIXELS is not None:  # above it pillow warns, and at twice it refuses
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, pixels)
    try:
        file = Image.open(path, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{error}, more than pixels={pixels:,}") from error
    with file:
        if file.width * file.height > pixels:
            raise ValueError(f"{file.width} x {file.height} pixels; wanted at most pixels={pixels:,}")
        turned = file.getexif().get(0x0112) in TURNED
        if least is not None:  # JPEG can be unpacked at 1/2, 1/4 or 1/8 of its size
            file.draft(mode, least[::-1] if turned else least)
        if file.mode in GREY16 or (file.mode == "I" and file.format in ("PNG", "PPM")):
            values = np.asarray(file).astype(np.float32) * np.float32(255 / 65535)
            upright = Image.fromarray(values)
            upright.getexif()[0x0112] = file.getexif().get(0x0112, 1)
            return ImageOps.exif_transpose(upright)
        if file.mode[0] in "IF":
            raise ValueError(
                f"pixels of kind {file.mode}, whose range no one knows, where 8 bits or 16 of grey can be read"
            )
        if file.mode == "P" and "transparency" in file.info:  # straight to RGB, pillow warns of some palettes
            return ImageOps.exif_transpose(file).convert("RGBA").convert(mode)
        return ImageOps.exif_transpose(file).convert(mode)


def _fitted(whole: Any, height: int, width: int, channels: int) -> np.ndarray:
    """Scaled until it covers the size, and what then protrudes cut off evenly."""
    from PIL import Image, ImageOps

    return _array(ImageOps.fit(whole, (width, height), Image.Resampling.BILINEAR), channels)


def _array(picture: Any, channels: int) -> np.ndarray:
    """HWC, float32 from 0 to 1."""
    image = np.asarray(picture, np.float32).reshape(picture.height, picture.width, -1) / np.float32(255)
    return image if image.shape[2] == channels else np.repeat(image, channels, 2)
