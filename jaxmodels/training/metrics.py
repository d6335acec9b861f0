"""Metrics: from weighted means on the device to means on the host."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.task import Mean, Task


def pack(metrics: Mapping[str, Mean]) -> jax.Array:
    """All means as one array (..., metrics sorted by name, 2), so that one transfer fetches them."""
    return jnp.stack([jnp.stack(metrics[name], -1) for name in sorted(metrics)], -2)


class MeanAccumulator:
    """Means being added up on the host, in float64."""

    LAST = ("learning_rate", "faults", "skipped_spikes")  # of an interval the last value counts, not the mean

    def __init__(self, names: Iterable[str], sums: Any = None):
        self.names = sorted(names)
        self.sums = np.zeros((len(self.names), 2)) if sums is None else np.asarray(sums, np.float64)

    def add(self, packed: np.ndarray) -> None:
        """Adds the packed metrics of one step, or of several along a first axis."""
        rows = np.reshape(packed, (-1, *self.sums.shape))
        self.sums = np.concatenate([self.sums[None], rows]).sum(0)
        for name in self.LAST:
            if name in self.names:
                at = self.names.index(name)
                self.sums[at] = rows[-1, at]

    def finish(self, task: Task) -> dict[str, float]:
        """The means, with what the task derives from them."""
        means = {n: float(t / w) if w else math.nan for n, (t, w) in zip(self.names, self.sums, strict=True)}
        return task.finish(means)
