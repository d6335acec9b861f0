"""A folder with an image classifier from elsewhere, as what `jaxmodels predict` needs of it.

Preprocessing is that of preprocessor_config.json (transformers) or of pretrained_cfg in config.json (timm).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.convert.load import load_pretrained
from jaxmodels.data.draw import captioned
from jaxmodels.data.images import open_picture
from jaxmodels.data.json_file import read_object
from jaxmodels.task import Predictor
from jaxmodels.tasks.classify import predictor

FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}  # pillow's numbers
LARGEST = 4096  # pixels of a side that a file may ask for


class ImageModel(NamedTuple):
    """A classifier's parameters, its variables that are not trained, and what reads pictures for it and says what it saw."""

    params: Any
    extra: Any
    predictor: Predictor


@dataclass(frozen=True)
class Preparation:
    """From a picture to what the model sees: scaled, cut out of the middle, and normalised."""

    scale: tuple[int, int] | int | None  # height and width; one number is the shorter side's; None leaves it
    crop: tuple[int, int] | None
    resample: int
    factor: float  # of bytes
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, path: Any) -> dict[str, np.ndarray]:
        """The file's picture as an example, float32 HWC."""
        picture = open_picture(path)
        if self.scale is not None:
            picture = picture.resize(self._size(picture.width, picture.height), self.resample)
        if self.crop is not None:
            height, width = self.crop
            left, top = (picture.width - width) // 2, (picture.height - height) // 2
            picture = picture.crop((left, top, left + width, top + height))
        pixels = np.asarray(picture, np.float32) * np.float32(self.factor)
        return {"image": ((pixels - self.mean) / self.deviation).astype(np.float32)}

    def _size(self, width: int, height: int) -> tuple[int, int]:
        if isinstance(self.scale, tuple):
            return self.scale[1], self.scale[0]
        assert self.scale is not None
        short = self.scale
        if width <= height:
            return short, min(LARGEST, short * height // width)
        return min(LARGEST, short * width // height), short


def open_image_model(folder: str | os.PathLike[str]) -> ImageModel:
    """The classifier of a folder with config.json, weights and what prepares its pictures. Needs pillow."""
    folder = Path(folder)
    model, params, extra, config = load_pretrained(folder)
    if not getattr(model, "classes", 0) or not hasattr(model, "features"):
        kind = config.get("architecture") or config.get("model_type")
        raise ValueError(
            f"{folder} holds a {kind}, which does not classify pictures; wanted one that does, such as a ResNet"
        )
    names = _names(config, model.classes)
    return ImageModel(params, extra, predictor(model, names, read=preparation(folder, config), caption=captioned))


def preparation(folder: Path, config: Mapping[str, Any]) -> Preparation:
    """What the folder says of pictures."""
    if "architecture" in config:
        given = config.get("pretrained_cfg")
        return _of_timm({**config, **(given if isinstance(given, Mapping) else {})})
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {path}; wanted what says how pictures are prepared; get the whole release"
        )
    return _of_transformers(read_object(path))


def _of_transformers(said: Mapping[str, Any]) -> Preparation:
    kind = str(said.get("image_processor_type") or said.get("feature_extractor_type") or "")
    size, crop = said.get("size"), None
    scale: tuple[int, int] | int | None = None
    if said.get("do_resize", True):
        if isinstance(size, Mapping) and "shortest_edge" in size:
            size = _side(size["shortest_edge"])
            scale = size
            if kind.startswith("ConvNext"):  # scaled to more than is cut out; from 384 on, to exactly the size
                share = _positive(said.get("crop_pct") or 224 / 256)
                scale, crop = (_side(int(size / share)), (size, size)) if size < 384 else ((size, size), None)
        else:
            scale = _sides(size)
    if said.get("do_center_crop", False):
        crop = _sides(said.get("crop_size"))
    plain = not said.get("do_normalize", True)
    mean, deviation = (
        (fill,) * 3 if plain else _three(said.get(name), name) for name, fill in (("image_mean", 0.0), ("image_std", 1.0))
    )
    factor = _positive(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    resample = said.get("resample", 2)
    if resample not in FILTERS.values() or isinstance(resample, bool):
        raise ValueError(f"preprocessor_config.json: came resample {resample!r}; wanted pillow's 0 to 5: correct the file")
    return Preparation(scale, crop, int(resample), factor, mean, deviation)


def _of_timm(said: Mapping[str, Any]) -> Preparation:
    size = said.get("input_size", (3, 224, 224))
    if not isinstance(size, Sequence) or len(size) != 3 or size[0] != 3:
        raise ValueError(f"config.json: came input_size {size!r}; wanted 3, height and width: correct the file")
    height, width = _side(size[1]), _side(size[2])
    share, mode = _positive(said.get("crop_pct") or 0.875), said.get("crop_mode", "center")
    if mode not in ("center", "squash"):
        raise ValueError(f"config.json: came crop_mode {mode!r}; wanted center or squash, those that are followed here")
    resample = FILTERS.get(str(said.get("interpolation", "bicubic")))
    if resample is None:
        raise ValueError(f"config.json: came interpolation {said['interpolation']!r}; wanted one of {', '.join(FILTERS)}")
    larger = _side(int(height / share)), _side(int(width / share))
    scale: tuple[int, int] | int = larger[0] if mode == "center" and height == width else larger
    mean, deviation = _three(said.get("mean"), "mean"), _three(said.get("std"), "std")
    return Preparation(scale, (height, width), resample, 1 / 255, mean, deviation)


def _names(config: Mapping[str, Any], classes: int) -> list[str]:
    """The classes' names, numbers where there are none."""
    given = config.get("id2label") or config.get("label_names") or {}
    if isinstance(given, Mapping):
        return [str(given.get(str(i), given.get(i, f"class {i}"))) for i in range(classes)]
    return [str(name) for name in given] if len(given) == classes else [f"class {i}" for i in range(classes)]


def _sides(value: Any) -> tuple[int, int]:
    if isinstance(value, Mapping):
        return _side(value.get("height")), _side(value.get("width"))
    return _side(value), _side(value)


def _side(value: Any) -> int:
    if type(value) is not int or not 0 < value <= LARGEST:
        raise ValueError(
            f"the preparation of pictures: came a size of {value!r}; wanted pixels, 1 to {LARGEST:,}: correct it"
        )
    return value


def _positive(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e6:
        raise ValueError(f"the preparation of pictures: came {value!r}; wanted a positive number: correct it")
    return float(value)


def _three(value: Any, name: str) -> tuple[float, ...]:
    numbers = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3
    if not numbers or not all(isinstance(x, int | float) and -1e6 < x < 1e6 for x in value):
        raise ValueError(f"the preparation of pictures: came {name} {value!r}; wanted three numbers: correct it")
    return tuple(float(x) for x in value)
