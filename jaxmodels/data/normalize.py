"""Images as models were trained on them: each channel minus its mean, divided by its standard deviation.

Every function that returns batches of images takes normalize=(mean, deviation), in units of 0 to 1, one
number for each channel or one for all. It is applied last, after every random change, which expects 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Statistics = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation of each channel

# Those of torchvision, which most weights expect.
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
INCEPTION: Statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # -1 to 1, as in timm's vision transformers
CIFAR10: Statistics = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))  # of its training images
FASHION_MNIST: Statistics = ((0.2860,), (0.3530,))  # of its training images


@dataclass(frozen=True)
class Normalize:
    """Normalizes "image" of an example or a batch, of NumPy or JAX arrays."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, statistics: Statistics, channels: int) -> Normalize:
        """Raises ValueError where the statistics do not fit this number of channels."""
        try:
            mean, deviation = (tuple(float(x) for x in values) for values in statistics)
        except (TypeError, ValueError):
            mean = deviation = ()
        lengths_fit = {len(mean), len(deviation)} <= {1, channels}
        values_fit = all(math.isfinite(x) for x in mean) and all(0 < x < math.inf for x in deviation)
        if not (lengths_fit and values_fit):
            raise ValueError(
                f"normalize: got {statistics!r}; expected (mean, deviation) with {channels} values each or "
                "one, and deviations above 0. Give statistics such as normalize.IMAGENET"
            )
        return cls(mean, deviation)

    def __call__(self, batch: dict[str, Any], _: Any = None) -> dict[str, Any]:
        """The same with the images normalized."""
        # A product, as in from_bytes: XLA may turn a quotient into one.
        mean, factor = np.asarray(self.mean, np.float32), 1 / np.asarray(self.deviation, np.float32)
        return {**batch, "image": (batch["image"] - mean) * factor}


def from_bytes(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with its images of bytes as float32 from 0 to 1."""
    # A product, because XLA may turn a quotient into one, and host and device are to agree in every bit.
    return {**batch, "image": batch["image"].astype(np.float32) * np.float32(1 / 255)}


def behind(
    statistics: Statistics | None, channels: int, prepare: Callable[[dict], dict], augment: Sequence[Any]
) -> dict[str, Any]:
    """prepare and augment of an ArrayPipeline, with the images normalized after both.

    Without random changes a device can hold the data, and then the device normalizes.
    """
    if statistics is None:
        return {"prepare": prepare, "augment": augment}
    last = Normalize.of(statistics, channels)
    if augment:
        return {"prepare": prepare, "augment": (*augment, last)}

    def both(batch: dict[str, Any]) -> dict[str, Any]:
        return last(prepare(batch))

    return {"prepare": both, "augment": ()}
