"""A folder with an image classifier from elsewhere, as what `jaxmodels predict` needs of it.

Preprocessing is that of preprocessor_config.json (transformers) or of pretrained_cfg in config.json (timm).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.convert.load import load_pretrained
from jaxmodels.data.formats.images import open_image
from jaxmodels.data.formats.json_file import read_object
from jaxmodels.interfaces import Predictor
from jaxmodels.tasks.classify import predictor

FILTERS = {
    "nearest": 0,
    "lanczos": 1,
    "bilinear": 2,
    "bicubic": 3,
    "box": 4,
    "hamming": 5,
}  # pillow's numbers
LARGEST = 4096  # pixels of a side that a file may ask for


class Defaults(NamedTuple):
    """What a class of transformers does where its file does not say it."""

    size: dict[str, int]
    crop: int | None = None  # None: nothing is cut out
    resample: int = 3


CLASSES = {  # of transformers, without ImageProcessor or FeatureExtractor
    "ViT": Defaults({"height": 224, "width": 224}, resample=2),
    "DeiT": Defaults({"height": 256, "width": 256}, 224),
    "ConvNext": Defaults({"shortest_edge": 384}),
    "CLIP": Defaults({"shortest_edge": 224}, 224),
    "Bit": Defaults({"shortest_edge": 224}, 224),
    "MobileNetV1": Defaults({"shortest_edge": 256}, 224, 2),
    "MobileNetV2": Defaults({"shortest_edge": 256}, 224, 2),
}
OF_MODEL = {"vit": "ViT", "resnet": "ConvNext", "convnext": "ConvNext"}
# What changes a picture and is not followed, with what changes nothing. The rest is harmless: do_convert_rgb,
# as all pictures are read in three colours; do_reduce_labels, which is for labels; data_format,
# return_tensors and device, which are for the caller; timm's test_input_size and test_crop_pct, which it
# reads only where asked.
PLAIN: dict[str, tuple[Any, ...]] = {
    "do_pad": (None, False),
    "do_flip_channel_order": (None, False),
    "do_thumbnail": (None, False),
    "do_align_long_axis": (None, False),
    "do_crop_margin": (None, False),
    "do_split_image": (None, False),
    "do_image_splitting": (None, False),
    "rescale_offset": (None, False),
    "size_divisor": (None, 1),
    "ensure_multiple_of": (None, 1),
    "keep_aspect_ratio": (None, False),
}


class ImageModel(NamedTuple):
    """A classifier's parameters, its variables that are not trained, and what reads pictures for it and says what it saw."""

    params: Any
    extra: Any
    predictor: Predictor


@dataclass(frozen=True)
class Preparation:
    """From a picture to what the model sees: scaled, cut out of the middle, and normalised."""

    # Height and width; one number is the shorter side's; None leaves it. covers: in proportion, to at least
    # both.
    scale: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    resample: int
    factor: float  # of bytes
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    covers: bool = False
    halves_to_even: bool = (
        False  # where the middle is half a pixel: torchvision's rounding; transformers rounds down
    )

    def __call__(self, path: Any) -> dict[str, np.ndarray]:
        """The file's picture as an example, float32 HWC."""
        picture = open_image(path)
        if self.scale is not None:
            picture = picture.resize(self._size(picture.width, picture.height), self.resample)
        if self.crop is not None:
            height, width = self.crop
            left, top = self._before(picture.width, width), self._before(picture.height, height)
            picture = picture.crop((left, top, left + width, top + height))
        pixels = np.asarray(picture, np.float32) * np.float32(self.factor)
        return {"image": ((pixels - self.mean) / self.deviation).astype(np.float32)}

    def _before(self, whole: int, part: int) -> int:
        """Pixels before a part of this size in the middle, below zero where black is added."""
        if self.halves_to_even:
            return round((whole - part) / 2) if whole >= part else -((part - whole) // 2)
        return (whole - part) // 2

    def _size(self, width: int, height: int) -> tuple[int, int]:
        if isinstance(self.scale, tuple):
            if not self.covers:
                return self.scale[1], self.scale[0]
            ratio = min(height / self.scale[0], width / self.scale[1])
            return min(LARGEST, round(width / ratio)), min(LARGEST, round(height / ratio))
        assert self.scale is not None
        short = self.scale
        if width <= height:
            return short, min(LARGEST, short * height // width)
        return min(LARGEST, short * width // height), short


def open_image_model(
    folder: str | os.PathLike[str], *, caption: Callable[[Any, str], np.ndarray]
) -> ImageModel:
    """The classifier of a folder with config.json, weights and what prepares its images. Needs pillow.

    caption(path, text): the image of a file with a line of text, such as data.drawing.captioned.
    """
    folder = Path(folder)
    model, params, extra, config = load_pretrained(folder)
    if not getattr(model, "classes", 0) or not hasattr(model, "features"):
        kind = config.get("architecture") or config.get("model_type")
        raise ValueError(
            f"{folder}: got a {kind}, which does not classify images; expected a model that does. Take one "
            "such as a ResNet."
        )
    names = _names(config, model.classes)
    return ImageModel(
        params, extra, predictor(model, names, read=preparation(folder, config), caption=caption)
    )


def preparation(folder: Path, config: Mapping[str, Any]) -> Preparation:
    """What the folder says of pictures."""
    if "architecture" in config:
        given = config.get("pretrained_cfg")
        whole_config = {**config, **(given if isinstance(given, Mapping) else {})}
        return _prepares(folder / "config.json", _of_timm, whole_config)
    path = folder / "preprocessor_config.json"
    whole = folder / "processor_config.json"
    if not path.is_file() and whole.is_file():
        said = read_object(whole).get("image_processor")
        if not isinstance(said, Mapping):
            raise ValueError(
                f"{whole}: got no image_processor; expected what prepares images. Get the whole release."
            )
        return _prepares(whole, _of_transformers, said, config)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: got no file; expected one that says how images are prepared. Get the whole release."
        )
    return _prepares(path, _of_transformers, read_object(path), config)


def _prepares(path: Path, read: Callable[..., Preparation], *said: Mapping[str, Any]) -> Preparation:
    """What read makes of what a file says; its mistakes name the file."""
    try:
        return read(*said)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _class_of(said: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The class of transformers whose rule a file follows."""
    name = said.get("image_processor_type") or said.get("feature_extractor_type")
    if name is None:
        kind = config.get("model_type")
        return (
            "ConvNext"
            if "crop_pct" in said
            else OF_MODEL.get(kind, "ViT")
            if isinstance(kind, str)
            else "ViT"
        )
    kind = (
        str(name)
        .removesuffix("FeatureExtractor")
        .removesuffix("Fast")
        .removesuffix("Pil")
        .removesuffix("ImageProcessor")
    )
    if kind not in CLASSES:
        raise ValueError(
            f"got the image_processor_type {str(name)[:80]!r}; expected one of {', '.join(CLASSES)}, whose "
            "rules are followed here. Take another model, or prepare its images yourself."
        )
    return kind


def _scaled(said: Mapping[str, Any], kind: str) -> tuple[tuple[int, int] | int, tuple[int, int] | None]:
    """The size that a picture is scaled to, and what a ConvNeXt's is then cut to."""
    size = said.get("size", CLASSES[kind].size)
    square = said.get("default_to_square")
    if not isinstance(size, Mapping):
        if isinstance(size, list) and len(size) == 2:
            size = {"height": size[0], "width": size[1]}
        elif square is True or (square is None and "shortest_edge" not in CLASSES[kind].size):
            size = {"height": size, "width": size}
        else:
            size = {"shortest_edge": size}
    if not set(size) <= {"height", "width"} and set(size) != {"shortest_edge"}:
        raise ValueError(
            f"got size {str(dict(size))[:80]}; expected a shortest_edge, or height and width. Correct the "
            "file, or prepare the images yourself."
        )
    if "shortest_edge" not in size:
        return _sides(size), None
    short = _side(size["shortest_edge"])
    if kind != "ConvNext":
        return short, None
    if short >= 384:  # scaled to exactly the size; below to more than is cut out
        return (short, short), None
    return _side(int(short / _positive(said.get("crop_pct") or 224 / 256))), (short, short)


def _of_transformers(said: Mapping[str, Any], config: Mapping[str, Any] = {}) -> Preparation:
    for name, nothing in PLAIN.items():
        if name in said and said[name] not in nothing:
            raise ValueError(
                f"got {name} {str(said[name])[:80]}; expected {nothing[-1]}, the only value that is "
                "followed. Prepare the images yourself."
            )
    for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "default_to_square"):
        if not isinstance(said.get(name), bool | None):
            raise ValueError(f"got {name} {said[name]!r}; expected true or false. Correct the file.")
    kind = _class_of(said, config)
    scale, crop = _scaled(said, kind) if said.get("do_resize", True) else (None, None)
    if said.get("do_center_crop", CLASSES[kind].crop is not None):
        crop = _sides(said.get("crop_size", CLASSES[kind].crop))
    plain = not said.get("do_normalize", True)
    mean, deviation = (
        (fill,) * 3 if plain else _three(said.get(name), name)
        for name, fill in (("image_mean", 0.0), ("image_std", 1.0))
    )
    factor = _positive(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    resample = said.get("resample", CLASSES[kind].resample)
    if type(resample) is not int or resample not in FILTERS.values():
        raise ValueError(f"got resample {resample!r}; expected pillow's 0 to 5. Correct the file.")
    return Preparation(scale, crop, int(resample), factor, mean, deviation)


def _of_timm(said: Mapping[str, Any]) -> Preparation:
    size = said.get("input_size", (3, 224, 224))
    if not isinstance(size, Sequence) or len(size) != 3 or size[0] != 3:
        raise ValueError(f"got input_size {size!r}; expected 3, height and width. Correct the file.")
    height, width = _side(size[1]), _side(size[2])
    share, mode = _positive(said.get("crop_pct") or 0.875), said.get("crop_mode", "center")
    if mode not in ("center", "squash"):
        raise ValueError(f"got crop_mode {mode!r}; expected center or squash. Take another model.")
    resample = FILTERS.get(str(said.get("interpolation", "bicubic")))
    if resample is None:
        raise ValueError(
            f"got interpolation {said['interpolation']!r}; expected one of {', '.join(FILTERS)}. Correct the "
            "file."
        )
    larger = _side(int(height / share)), _side(int(width / share))
    covers = mode == "center" and height != width  # timm then leaves the interpolation at its default
    scale: tuple[int, int] | int = larger[0] if mode == "center" and height == width else larger
    resample = FILTERS["bilinear"] if covers else resample
    mean, deviation = _three(said.get("mean"), "mean"), _three(said.get("std"), "std")
    return Preparation(
        scale, (height, width), resample, 1 / 255, mean, deviation, covers, halves_to_even=True
    )


def _names(config: Mapping[str, Any], classes: int) -> list[str]:
    """The classes' names, numbers where there are none."""
    given = config.get("id2label") or config.get("label_names") or {}
    if isinstance(given, Mapping):
        return [str(given.get(str(i), given.get(i, f"class {i}"))) for i in range(classes)]
    named = isinstance(given, list) and len(given) == classes
    return [str(name) for name in given] if named else [f"class {i}" for i in range(classes)]


def _sides(value: Any) -> tuple[int, int]:
    if isinstance(value, Mapping):
        return _side(value.get("height")), _side(value.get("width"))
    return _side(value), _side(value)


def _side(value: Any) -> int:
    if type(value) is not int or not 0 < value <= LARGEST:
        raise ValueError(f"got a size of {value!r}; expected pixels, 1 to {LARGEST:,}. Correct the file.")
    return value


def _positive(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e6:
        raise ValueError(f"got {value!r}; expected a positive number. Correct the file.")
    return float(value)


def _three(value: Any, name: str) -> tuple[float, ...]:
    numbers = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3
    if not numbers or not all(
        isinstance(x, int | float) and not isinstance(x, bool) and -1e6 < x < 1e6 for x in value
    ):
        raise ValueError(f"got {name} {value!r}; expected three numbers. Correct the file.")
    if "std" in name and 0 in value:
        raise ValueError(f"got {name} {value}; expected no zero, as it divides. Correct the file.")
    return tuple(float(x) for x in value)
