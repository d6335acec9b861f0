"""Long curves drawn by few points, honestly: of each bucket the lowest and the highest value stay, so no spike is lost."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np


def kept(values: np.ndarray, buckets: int) -> np.ndarray:
    """Positions to draw: of each of so many equal parts the minimum, the maximum and the first value that is not finite.

    The ends stay too, and all of a curve that is no longer than twice the buckets.
    """
    if not is_long(values, buckets):
        return np.arange(len(values))
    stay = {0, len(values) - 1}
    for a, b in _parts(values, buckets):
        good = np.isfinite(values[a:b])
        if good.any():
            stay.add(a + int(np.where(good, values[a:b], np.inf).argmin()))
            stay.add(a + int(np.where(good, values[a:b], -np.inf).argmax()))
        if not good.all():
            stay.add(a + int(good.argmin()))
    return np.array(sorted(stay))


def middles(values: np.ndarray, buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """(positions, means of the finite values) of the buckets of a long curve."""
    found = [((a + b - 1) // 2, values[a:b][np.isfinite(values[a:b])]) for a, b in _parts(values, buckets)]
    means = [part.mean() if len(part) else np.nan for _, part in found]
    return np.array([at for at, _ in found]), np.array(means)


def is_long(values: np.ndarray, buckets: int) -> bool:
    """Whether a curve has more points than are drawn."""
    return len(values) > 2 * buckets


def _parts(values: np.ndarray, buckets: int) -> Iterator[tuple[int, int]]:
    return pairwise(np.linspace(0, len(values), buckets + 1).astype(int).tolist())
