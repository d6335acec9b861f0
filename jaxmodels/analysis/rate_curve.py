"""The curve of jaxmodels find-rate: what it says, and how the terminal shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmodels.analysis.text_plot import plot
from jaxmodels.console import Console, number

FIRST = 10  # losses whose mean is the loss at the beginning
FAR = 4.0  # times the loss at the beginning, beyond which more steps tell nothing
WIDE = 0.15  # decades of the rate: standard deviation of the weights that smooth the loss
CERTAIN = 3.0  # standard errors by which the loss must fall


def read_curve(rates: np.ndarray, losses: np.ndarray) -> dict[str, Any]:
    """{"smoothed", "steepest", "least"} of the curve; by the logarithm of the loss where it is positive."""
    unclear: dict[str, Any] = {"smoothed": losses.tolist(), "steepest": None, "least": None}
    if len(losses) <= FIRST:
        return unclear
    log = bool((losses > 0).all())
    x, y = np.log10(rates), np.log(losses) if log else losses
    weights = np.exp(-0.5 * ((x[:, None] - x) / max(WIDE, 1.5 * (x[1] - x[0]))) ** 2)
    weights /= weights.sum(1, keepdims=True)
    smoothed = weights @ y
    unclear["smoothed"] = (np.exp(smoothed) if log else smoothed).tolist()
    least = int(np.argmin(smoothed))
    noise = float(np.std(np.diff(y[: max(FIRST, len(y) // 5)]))) / math.sqrt(2)
    error = noise * math.sqrt(1 / FIRST + float((weights[least] ** 2).sum()))
    if least <= FIRST or float(np.mean(y[:FIRST])) - smoothed[least] < CERTAIN * error:
        return unclear
    slopes = np.gradient(smoothed[: least + 1], x[: least + 1])
    steepest = FIRST + int(np.argmin(slopes[FIRST:]))
    return {**unclear, "steepest": float(rates[steepest]), "least": float(rates[least])}


def show(path: str, found: dict[str, Any], console: Console, width: int = 72) -> None:
    """The curve, and what it says."""
    rates, smoothed = np.array(found["rates"]), np.array(found["smoothed"])
    if len(rates) <= FIRST:
        why = f"the loss was too high, or not finite, after {len(rates)} updates"
        console.say(f"{why}: lower --low, or look at the data with jaxmodels train", "bold")
        return
    shown, steepest, least = points_shown(found), found["steepest"], found["least"]
    lines = plot(smoothed[:shown], width)
    margin = len(lines[-1]) - len(lines[-1].lstrip("0123456789.,e+- "))
    room, last = len(lines[-1]) - margin, f"{rates[shown - 1]:.0e}"
    axis = f"{rates[0]:.0e}".ljust(room - len(last)) + last
    if steepest is not None:
        at = int(np.searchsorted(rates, steepest)) * room // shown
        axis = axis[:at] + "▲" + axis[at + 1 :]
    console.say(f"{path}: the smoothed loss as the rate rises", "bold")
    for line in [*lines, " " * margin + axis]:
        console.say(line)
    if steepest is None:
        over = found["losses"][-1] >= FAR * max(map(abs, found["losses"][:FIRST]))
        more = "more --updates or a larger batch" + ("" if over else ", or a higher --high")
        console.say(f"\nthe loss did not fall by more than its noise at any rate: try {more}", "bold")
        return
    console.say(
        f"\n{steepest:.1e}  falls fastest: a peak to begin with (the file's own is {found['peak']:.1e})"
    )
    rises = "it still falls, --high goes further" if least == rates[-1] else "it rises beyond"
    console.say(f"{least:.1e}  is least, {number(float(smoothed.min()))}: {rises}")


def points_shown(found: Mapping[str, Any]) -> int:
    """How many points are shown: until the smoothed loss is as high as at the beginning."""
    smoothed, start = np.array(found["smoothed"]), float(np.mean(found["losses"][:FIRST]))
    back = np.nonzero((smoothed > start) & (np.arange(len(smoothed)) > int(np.argmin(smoothed))))[0]
    return int(back[0]) + 1 if len(back) else len(smoothed)
