"""Long curves drawn by few points: each bucket keeps its lowest and highest value, so no spike is lost."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np


def extremes(values: np.ndarray, buckets: int) -> np.ndarray:
    """Indices to draw: of each bucket the minimum, the maximum and the first value that is not finite.

    Buckets are equal parts of the curve. Its ends stay too, and so does every point of a curve that is no
    longer than twice the buckets.
    """
    if not is_long(values, buckets):
        return np.arange(len(values))
    kept = {0, len(values) - 1}
    for start, stop in _bounds(values, buckets):
        finite = np.isfinite(values[start:stop])
        if finite.any():
            kept.add(start + int(np.where(finite, values[start:stop], np.inf).argmin()))
            kept.add(start + int(np.where(finite, values[start:stop], -np.inf).argmax()))
        if not finite.all():
            kept.add(start + int(finite.argmin()))
    return np.array(sorted(kept))


def bucket_means(values: np.ndarray, buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the middles, means of the finite values) of the buckets of a long curve."""
    middles, means = [], []
    for start, stop in _bounds(values, buckets):
        finite = values[start:stop][np.isfinite(values[start:stop])]
        middles.append((start + stop - 1) // 2)
        means.append(finite.mean() if len(finite) else np.nan)
    return np.array(middles), np.array(means)


def is_long(values: np.ndarray, buckets: int) -> bool:
    """Whether a curve has more points than are drawn."""
    return len(values) > 2 * buckets


def _bounds(values: np.ndarray, buckets: int) -> Iterator[tuple[int, int]]:
    return pairwise(np.linspace(0, len(values), buckets + 1).astype(int).tolist())
