"""Pairs of examples mixed into one: mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899).

Row r of a batch is mixed with its neighbor, row r + 1 where r is even and r - 1 where it is odd, by the share
of the pair. So some rows of a batch need at most one more row at either end, and no result depends on how a
batch is divided between processes.
Dimensions: B rows of a batch, H W image, C channels.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import betaincinv

from jaxmodels.data.keyed_random import uniform
from jaxmodels.data.order import stream_keys
from jaxmodels.pipeline import Pipeline, Spec


class Mixed(Pipeline):
    """A pipeline's batches with images mixed in pairs.

    They hold "other" (int32, the neighbor's label) and "share" (float32, of the row's own label), which the
    loss of classify uses. Mixup adds both images by their shares, CutMix puts a rectangle of the neighbor
    into the image. Padding is not mixed.

    mixup, cutmix: parameter a of the share's distribution Beta(a, a), in which a large a gives even shares; 0
        turns that kind off. With both, each pair is mixed by either with probability one half.
    probability: that a pair is mixed at all.
    """

    def __init__(self, data: Pipeline, *, mixup: float = 0.8, cutmix: float = 1.0, probability: float = 1.0):
        if min(mixup, cutmix) < 0 or max(mixup, cutmix) == 0 or not 0 <= probability <= 1:
            raise ValueError(
                f"Mixed: got mixup={mixup}, cutmix={cutmix}, probability={probability}; expected parameters "
                "of at least 0, one of them above, and a probability from 0 to 1. Change them"
            )
        self.data, self.mixup, self.cutmix, self.probability = data, mixup, cutmix, probability
        self.batch = data.batch

    @cached_property
    def steps(self) -> int:
        """Batches in one pass."""
        return self.data.steps

    @cached_property
    def spec(self) -> Spec:
        """Shape and type of each array of a batch, without the example axis."""
        return {**self.data.spec, "other": ((), np.dtype(np.int32)), "share": ((), np.dtype(np.float32))}

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of the data that are not mixed."""
        return {name: x for name, x in self.data.columns().items() if name != "image"}

    def indices(self, step: Any, start: int, stop: int) -> np.ndarray | None:
        """The examples in rows start to stop of batch `step`; -1 is padding."""
        return self.data.indices(step, start, stop)

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows start to stop of batch `step`."""
        first, last = start - start % 2, min(self.batch, stop + stop % 2)
        batch = self.data.rows(step, first, last)
        row_B = np.arange(last - first)
        other_B = np.minimum(row_B ^ 1, last - first - 1)  # the last row of an odd batch is its own neighbor
        pair_B = np.uint64(step * self.batch + first) + (row_B - row_B % 2).astype(np.uint64)
        u = uniform(stream_keys(self.data.seed, pair_B), 5, salt=21)
        real_B = (batch["weight"] > 0) & (batch["weight"][other_B] > 0) & (u[:, 0] < self.probability)
        cutmix_B = real_B & (self.mixup == 0 or (u[:, 1] < 0.5)) if self.cutmix else np.zeros_like(real_B)
        a_B = np.where(cutmix_B, self.cutmix, self.mixup or 1.0)
        share_B = np.where(real_B, betaincinv(a_B, a_B, u[:, 2].astype(np.float64)), 1.0)
        image, share_B = _mixed(batch["image"], other_B, share_B, cutmix_B, u[:, 3:])
        label_B = batch["label"][other_B].astype(np.int32)
        batch = {**batch, "image": image, "other": label_B, "share": share_B.astype(np.float32)}
        return {name: x[start - first : stop - first] for name, x in batch.items()}

    def fingerprint(self) -> str:
        """Changes when an example or the order of the examples does; see data/fingerprint.py."""
        return self.data.fingerprint()

    def describe(self) -> str:
        """The data and its batches, in one phrase."""
        return f"{self.data.describe()}, mixed in pairs"


def _mixed(image: Any, other_B: Any, share_B: Any, cutmix_B: Any, u: Any) -> tuple[np.ndarray, np.ndarray]:
    """(images, the shares that the rounded rectangles have)."""
    H, W = image.shape[1:3]
    size_B = np.sqrt(1 - share_B)  # of the rectangle's sides
    bounds = []
    for n, middle_B in ((H, u[:, 0] * H), (W, u[:, 1] * W)):
        low_B = np.round(middle_B - size_B * n / 2).clip(0, n)
        high_B = np.round(middle_B + size_B * n / 2).clip(0, n)
        bounds.append((np.arange(n) >= low_B[:, None]) & (np.arange(n) < high_B[:, None]))
    hole_BHW = bounds[0][:, :, None] & bounds[1][:, None] & cutmix_B[:, None, None]
    share_B = np.where(cutmix_B, 1 - hole_BHW.mean((1, 2)), share_B)
    mixup = image * share_B.astype(np.float32)[:, None, None, None]
    mixup += image[other_B] * (1 - share_B).astype(np.float32)[:, None, None, None]
    cutmix = np.where(hole_BHW[..., None], image[other_B], image)
    return np.where(cutmix_B[:, None, None, None], cutmix, mixup).astype(image.dtype), share_B
