"""A curve as lines of text, for a terminal."""

from __future__ import annotations

import math

import numpy as np

from jaxmodels.console import number, told_apart

HEIGHT = 8  # lines of a plot
LOGARITHMIC_FROM = 10.0  # ratio of the highest to the lowest from which the axis is logarithmic
BLOCKS = " ▁▂▃▄▅▆▇█"


def plot(values: np.ndarray, width: int, *, margin: int = 0) -> list[str]:
    """HEIGHT lines of at most `width` columns: means of as many parts of the values as there is room for.

    The axis runs from the lowest to the highest mean and is labelled at both and in the middle; it is
    logarithmic where the highest is LOGARITHMIC_FROM times the lowest. margin: least columns of the
    labels. [] for fewer than two values.
    """
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return []
    margin = max(margin, *(len(number(float(x))) + 1 for x in (values.min(), values.max())))
    parts = np.array_split(values, min(len(values), max(10, width - margin)))
    columns = np.array([part.mean() for part in parts])
    logarithmic = columns.min() > 0 and columns.max() >= LOGARITHMIC_FROM * columns.min()
    columns = np.log(columns) if logarithmic else columns
    low, high = float(columns.min()), float(columns.max())
    heights = {HEIGHT - 1: high, HEIGHT // 2: (low + high) / 2, 0: low}
    marks = [math.exp(x) if logarithmic else x for x in heights.values()]
    labels = dict(zip(heights, map(number, marks), strict=True))
    if len({*labels.values()}) < len({*marks}):  # too near each other for the digits of a metric
        labels = dict(zip(heights, told_apart(marks), strict=True))
    if max(map(len, labels.values())) >= margin:
        return plot(values, width, margin=max(map(len, labels.values())) + 1)
    eighths = np.rint((columns - low) / ((high - low) or 1.0) * (8 * HEIGHT - 1)).astype(int) + 1
    lines = []
    for row in reversed(range(HEIGHT)):
        bars = "".join(BLOCKS[min(8, max(0, n - 8 * row))] for n in eighths.tolist())
        lines.append(f"{labels.get(row, '').rjust(margin - 1)} {bars}")
    return lines
