"""Images as models were trained to see them: each channel less its mean, divided by its standard deviation.

Every function that gives batches of images takes normalize=(mean, deviation), in units of 0 to 1, one number
for each channel or one for all. It is applied last, behind every random change, which expects 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Statistics = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation of each channel

IMAGENET: Statistics = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # torchvision's, which most weights ask for
INCEPTION: Statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # -1 to 1, as of timm's vision transformers
CIFAR10: Statistics = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))  # of its training images
FASHION_MNIST: Statistics = ((0.2860,), (0.3530,))  # of its training images


@dataclass(frozen=True)
class Normalize:
    """Changes "image" of an example or of a batch, whatever is given beside it; on NumPy and JAX arrays alike."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, statistics: Statistics, channels: int) -> Normalize:
        """Raises ValueError where they are not those of so many channels."""
        try:
            mean, deviation = (tuple(float(x) for x in numbers) for numbers in statistics)
        except (TypeError, ValueError):
            mean = deviation = ()
        wanted = {1, channels}
        if not (
            len(mean) in wanted and len(deviation) in wanted and all(math.isfinite(x) for x in mean)
        ) or not all(0 < x < math.inf for x in deviation):
            raise ValueError(
                f"normalize: got {statistics!r}; expected (mean, deviation) with {channels} or 1 numbers each, deviations "
                "above 0. Give such as normalize.IMAGENET"
            )
        return cls(mean, deviation)

    def __call__(self, batch: dict[str, Any], _: Any = None) -> dict[str, Any]:
        """The same with the images normalised."""
        # A product, as in the data sets' own scaling: XLA may turn a quotient into one.
        mean, factor = np.asarray(self.mean, np.float32), 1 / np.asarray(self.deviation, np.float32)
        return {**batch, "image": (batch["image"] - mean) * factor}


def behind(
    statistics: Statistics | None, channels: int, prepare: Callable[[dict], dict], augment: Sequence[Any]
) -> dict[str, Any]:
    """prepare and augment of an ArrayPipeline, with the images normalised behind both; without random changes the device
    can hold the data, and does it there."""
    if statistics is None:
        return {"prepare": prepare, "augment": augment}
    last = Normalize.of(statistics, channels)
    if augment:
        return {"prepare": prepare, "augment": (*augment, last)}
    return {"prepare": lambda batch: last(prepare(batch))}
