"""A folder with an image classifier of another library, for `jaxmodels predict`.

Preprocessing follows preprocessor_config.json (transformers) or of pretrained_cfg in config.json (timm).
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

# Pillow's numbers of its filters.
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
LARGEST = 4096  # pixels of a side that a file may ask for


class Defaults(NamedTuple):
    """The settings of a class of transformers that its file may omit."""

    size: dict[str, int]
    crop: int | None = None  # None: no crop
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
# Settings that would change an image and are refused, with the values that change nothing. Others are
# ignored: do_convert_rgb, since all images are read in three colours; do_reduce_labels, which is for labels;
# data_format, return_tensors and device, which are for the caller; timm's test_input_size and test_crop_pct,
# which timm reads only on request.
NEUTRAL: dict[str, tuple[Any, ...]] = {
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
    """A classifier's parameters, its other variables, and its predictor."""

    params: Any
    extra: Any
    predictor: Predictor


@dataclass(frozen=True)
class Preparation:
    """From an image to the model's input: scaled, cropped from the centre, and normalised."""

    scale: tuple[int, int] | int | None  # height and width; one number is the shorter side; None: no scaling
    crop: tuple[int, int] | None
    resample: int
    factor: float  # of bytes
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    covers: bool = False  # keeps the proportions, with at least the height and width of scale
    halves_to_even: bool = False  # torchvision's rounding of half a pixel; transformers rounds down

    def __call__(self, path: Any) -> dict[str, np.ndarray]:
        """The file's image as an example, float32 HWC."""
        image = open_image(path)
        if self.scale is not None:
            image = image.resize(self._size(image.width, image.height), self.resample)
        if self.crop is not None:
            height, width = self.crop
            left, top = self._margin(image.width, width), self._margin(image.height, height)
            image = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(image, np.float32) * np.float32(self.factor)
        return {"image": ((pixels - self.mean) / self.deviation).astype(np.float32)}

    def _margin(self, side: int, crop: int) -> int:
        """Pixels before a crop of this size in the centre; negative where black is added."""
        if self.halves_to_even:
            return round((side - crop) / 2) if side >= crop else -((crop - side) // 2)
        return (side - crop) // 2

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
    folder: str | os.PathLike[str],
    *,
    caption: Callable[[Any, str], np.ndarray],
    adapter: str | os.PathLike[str] | None = None,
) -> ImageModel:
    """The classifier of a folder with config.json, weights and settings of preprocessing. Needs pillow.

    caption(path, text): the image of a file with a line of text, such as data.drawing.captioned.
    adapter: as in load_pretrained.
    """
    folder = Path(folder)
    model, params, extra, config = load_pretrained(folder, adapter=adapter)
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
    """The preprocessing that a folder's files describe."""
    if "architecture" in config:
        nested = config.get("pretrained_cfg")
        settings = {**config, **(nested if isinstance(nested, Mapping) else {})}
        return _read(folder / "config.json", from_timm, settings)
    path = folder / "preprocessor_config.json"
    of_processor = folder / "processor_config.json"
    if not path.is_file() and of_processor.is_file():
        image_processor = read_object(of_processor).get("image_processor")
        if not isinstance(image_processor, Mapping):
            raise ValueError(
                f"{of_processor}: got no image_processor; expected settings of preprocessing. Get the whole "
                "release."
            )
        return _read(of_processor, from_transformers, image_processor, config)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: got no file; expected one that says how images are prepared. Get the whole release."
        )
    return _read(path, from_transformers, read_object(path), config)


def _read(path: Path, parse: Callable[..., Preparation], *settings: Mapping[str, Any]) -> Preparation:
    """parse(*settings), whose errors name the file."""
    try:
        return parse(*settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _class_of(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The class of transformers whose rules a file follows."""
    name = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    if name is None:
        if "crop_pct" in settings:
            return "ConvNext"
        model_type = config.get("model_type")
        return OF_MODEL.get(model_type, "ViT") if isinstance(model_type, str) else "ViT"
    kind = str(name)
    for suffix in ("FeatureExtractor", "Fast", "Pil", "ImageProcessor"):
        kind = kind.removesuffix(suffix)
    if kind not in CLASSES:
        raise ValueError(
            f"got the image_processor_type {str(name)[:80]!r}; expected one of {', '.join(CLASSES)}, whose "
            "rules are followed here. Take another model, or prepare its images yourself."
        )
    return kind


def _scaled(settings: Mapping[str, Any], kind: str) -> tuple[tuple[int, int] | int, tuple[int, int] | None]:
    """The size that an image is scaled to, and the crop of a ConvNeXt."""
    size = settings.get("size", CLASSES[kind].size)
    square = settings.get("default_to_square")
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
    if short >= 384:  # scaled to exactly the size; smaller ones to more than the crop
        return (short, short), None
    return _side(int(short / _positive(settings.get("crop_pct") or 224 / 256))), (short, short)


def from_transformers(settings: Mapping[str, Any], config: Mapping[str, Any] = {}) -> Preparation:
    """The preprocessing that preprocessor_config.json describes. config: the model's config.json."""
    for name, neutral in NEUTRAL.items():
        if name in settings and settings[name] not in neutral:
            raise ValueError(
                f"got {name} {str(settings[name])[:80]}; expected {neutral[-1]}, the only value that is "
                "followed. Prepare the images yourself."
            )
    for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "default_to_square"):
        if not isinstance(settings.get(name), bool | None):
            raise ValueError(f"got {name} {settings[name]!r}; expected true or false. Correct the file.")
    kind = _class_of(settings, config)
    scale, crop = _scaled(settings, kind) if settings.get("do_resize", True) else (None, None)
    if settings.get("do_center_crop", CLASSES[kind].crop is not None):
        crop = _sides(settings.get("crop_size", CLASSES[kind].crop))
    mean: tuple[float, ...] = (0.0,) * 3
    deviation: tuple[float, ...] = (1.0,) * 3
    if settings.get("do_normalize", True):
        mean = _three(settings.get("image_mean"), "image_mean")
        deviation = _three(settings.get("image_std"), "image_std")
    factor = _positive(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0
    resample = settings.get("resample", CLASSES[kind].resample)
    if type(resample) is not int or resample not in FILTERS.values():
        raise ValueError(f"got resample {resample!r}; expected pillow's 0 to 5. Correct the file.")
    return Preparation(scale, crop, int(resample), factor, mean, deviation)


def from_timm(settings: Mapping[str, Any]) -> Preparation:
    """The preprocessing that pretrained_cfg describes."""
    size = settings.get("input_size", (3, 224, 224))
    if not isinstance(size, Sequence) or len(size) != 3 or size[0] != 3:
        raise ValueError(f"got input_size {size!r}; expected 3, height and width. Correct the file.")
    height, width = _side(size[1]), _side(size[2])
    share, mode = _positive(settings.get("crop_pct") or 0.875), settings.get("crop_mode", "center")
    if mode not in ("center", "squash"):
        raise ValueError(f"got crop_mode {mode!r}; expected center or squash. Take another model.")
    resample = FILTERS.get(str(settings.get("interpolation", "bicubic")))
    if resample is None:
        raise ValueError(
            f"got interpolation {settings['interpolation']!r}; expected one of {', '.join(FILTERS)}. Correct "
            "the file."
        )
    larger = _side(int(height / share)), _side(int(width / share))
    covers = mode == "center" and height != width  # timm then leaves the interpolation at its default
    scale: tuple[int, int] | int = larger[0] if mode == "center" and height == width else larger
    resample = FILTERS["bilinear"] if covers else resample
    mean, deviation = _three(settings.get("mean"), "mean"), _three(settings.get("std"), "std")
    return Preparation(
        scale, (height, width), resample, 1 / 255, mean, deviation, covers, halves_to_even=True
    )


def _names(config: Mapping[str, Any], classes: int) -> list[str]:
    """The classes' names, or numbers where config.json has no names."""
    names = config.get("id2label") or config.get("label_names") or {}
    if isinstance(names, Mapping):
        return [str(names.get(str(i), names.get(i, f"class {i}"))) for i in range(classes)]
    if isinstance(names, list) and len(names) == classes:
        return [str(name) for name in names]
    return [f"class {i}" for i in range(classes)]


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
    def is_number(x: Any) -> bool:
        return isinstance(x, int | float) and not isinstance(x, bool) and -1e6 < x < 1e6

    is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_sequence or len(value) != 3 or not all(is_number(x) for x in value):
        raise ValueError(f"got {name} {value!r}; expected three numbers. Correct the file.")
    if "std" in name and 0 in value:
        raise ValueError(f"got {name} {value}; expected no zero, as it divides. Correct the file.")
    return tuple(float(x) for x in value)
