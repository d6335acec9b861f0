"""The curve of jaxmodels find-rate, in the terminal and in files."""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodels.analysis.text_plot import plot
from jaxmodels.console import Console, number
from jaxmodels.runs.files import write_text

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
    shown, steepest, least = _until(found), found["steepest"], found["least"]
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


def _until(found: dict[str, Any]) -> int:
    """How many points are shown: until the smoothed loss is as high as at the beginning."""
    smoothed, start = np.array(found["smoothed"]), float(np.mean(found["losses"][:FIRST]))
    back = np.nonzero((smoothed > start) & (np.arange(len(smoothed)) > int(np.argmin(smoothed))))[0]
    return int(back[0]) + 1 if len(back) else len(smoothed)


def write(path: str, found: dict[str, Any], folder: Path) -> Path:
    """Writes curve.json, and curve.svg where there is a curve; gives the file to look at.

    The losses are points, the smoothed losses a line.

    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "curve.json", json.dumps({"file": path, **found}) + "\n")
    if len(found["rates"]) <= FIRST:
        (folder / "curve.svg").unlink(missing_ok=True)
        return folder / "curve.json"
    write_text(folder / "curve.svg", _svg(Path(path).name, found))
    return folder / "curve.svg"


def _svg(title: str, found: dict[str, Any], wide: int = 720, high: int = 400, edge: int = 60) -> str:
    shown = _until(found)
    x, losses, smoothed = (np.array(found[name][:shown]) for name in ("rates", "losses", "smoothed"))
    x, low, top = np.log10(x), float(smoothed.min()), float(smoothed.max())
    low, top = low - 0.1 * (top - low), top + 0.1 * (top - low) or low + 1.0

    def across(v):
        return edge + (wide - 1.5 * edge) * (v - x[0]) / (x[-1] - x[0])

    def up(v):
        return high - edge - (high - 2 * edge) * (np.clip(v, low, top) - low) / (top - low)

    def text(a, b, said, more=""):
        return f'<text x="{a:.1f}" y="{b:.1f}" {more}>{html.escape(said)}</text>'

    def line(a, b, c, d, of):
        return f'<path d="M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}" stroke="{of}"/>'

    right, middle = 'text-anchor="end"', 'text-anchor="middle"'
    parts = [text(edge, 30, f"{title}: loss as the learning rate rises", 'font-size="15"')]
    for decade in range(math.ceil(x[0] - 1e-6), math.floor(x[-1] + 1e-6) + 1):
        at = across(decade)
        parts += [line(at, edge, at, high - edge, "#ddd"), text(at, high - edge + 20, f"1e{decade}", middle)]
    for value in np.linspace(low, top, 5):
        at = float(up(value))
        parts += [line(edge, at, wide - edge / 2, at, "#ddd"), text(edge - 6, at + 4, f"{value:.3g}", right)]
    points = [f"{a:.1f},{b:.1f}" for a, b in zip(across(x), up(smoothed), strict=True)]
    parts += [
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2" fill="#9bb"/>'
        for a, b in zip(across(x), up(losses), strict=True)
    ]
    parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="#135" stroke-width="2"/>')
    for name in ("steepest", "least"):
        if found[name] is not None:
            at = across(math.log10(found[name]))
            parts += [
                line(at, edge, at, high - edge, "#c40"),
                text(at, edge - 6, f"{name} {found[name]:.1e}", middle),
            ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" '
        'font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, f'<rect width="{wide}" height="{high}" fill="#fff"/>', *parts, "</svg>", ""])
