"""Figures of a sweep: its metric by knob, importance of knobs, the best so far, and parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.console import told_apart
from jaxmodels.report import run_page
from jaxmodels.report.charts import Figure, colour, figure, label, listed
from jaxmodels.report.read_run import is_number
from jaxmodels.report.read_sweep import Sweep, importance
from jaxmodels.sweeps.statistics import Setting

MOST_TICKS = 9  # values written at an axis
WIDE = 10.0  # ratio of the largest to the smallest, from which on an axis is logarithmic


def figures(sweep: Sweep, ranked: list[Setting]) -> list[Figure]:
    """Every figure that says something about these settings. ranked: the best first."""
    several = len(sweep.knobs) > 1
    found = [_by_knob(sweep, knob) for knob in sweep.knobs]
    if several:
        found.append(_importance(sweep))
    if len(sweep.settings) > 2:
        found.append(_best_so_far(sweep))
    if several:
        found.append(_parallel_coordinates(sweep, ranked))
    return [chart for chart in found if chart]


def setting_name(knobs: dict[str, Any]) -> str:
    """A setting for people: lr 0.1, kind sgd."""
    return ", ".join(f"{name} {run_page.knob_text(value)}" for name, value in knobs.items()) or "all"


class _Axis(NamedTuple):
    """Values of a knob along an axis. ticks: positions at which the texts are written."""

    positions: np.ndarray
    ticks: list[float]
    texts: list[str]


def _axis(values: list[Any]) -> _Axis:
    """Numbers lie on a scale, a logarithmic one where they are far apart; other values at 0, 1, 2 …"""
    if all(is_number(value) for value in values):
        logarithmic = min(values) > 0 and max(values) / min(values) >= WIDE
        shown = sorted({*values}) if len({*values}) <= MOST_TICKS else [min(values), max(values)]
        positions, ticks = np.array(values, float), np.array(shown, float)
        if logarithmic:
            positions, ticks = np.log10(positions), np.log10(ticks)
        return _Axis(positions, ticks.tolist(), told_apart(shown))
    kinds = list(dict.fromkeys(map(run_page.knob_text, values)))
    indices = [kinds.index(run_page.knob_text(value)) for value in values]
    return _Axis(np.array(indices, float), [*map(float, range(len(kinds)))], kinds)


def _finite(settings: list[Setting]) -> list[Setting]:
    return [s for s in settings if math.isfinite(s.mean)]


def _dots(x: Any, settings: list[Setting], **more: Any) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": listed(x),
        "y": listed(s.mean for s in settings),
        "text": [label(setting_name(s.knobs)) for s in settings],
        "hovertemplate": "%{text}: %{y:.4~g}<extra></extra>",
        "marker": {"color": colour(0), "size": 6},
        **more,
    }


def _by_knob(sweep: Sweep, knob: str) -> Figure | None:
    """Means of the settings over one knob, and where other knobs vary too, the mean at each value."""
    settings = _finite(sweep.settings)
    if len({repr(s.knobs[knob]) for s in settings}) < 2:
        return None
    axis = _axis([s.knobs[knob] for s in settings])
    positions = sorted({*axis.positions.tolist()})
    several = len(positions) < len(settings)  # settings at one position
    has_bars = any(s.interval for s in settings) and not several
    dots = _dots(axis.positions, settings, **({"opacity": 0.5} if several else {}))
    if has_bars:
        bars = {
            "type": "data",
            "array": listed(s.interval or 0 for s in settings),
            "thickness": 1,
            "width": 3,
        }
        dots["error_y"] = {**bars, "color": colour(0)}
    data = [dots]
    if several or len(positions) <= MOST_TICKS:
        means = []
        for x in positions:
            at_x = [s.mean for s, p in zip(settings, axis.positions, strict=True) if p == x]
            means.append(np.mean(at_x))
        line = {"color": colour(1 if several else 0), "width": 1.6}
        data.insert(0, _line(positions, means, line))
    pad = 0.06 * (positions[-1] - positions[0])
    x_axis = {
        "tickvals": axis.ticks,
        "ticktext": [*map(label, axis.texts)],
        "range": [positions[0] - pad, positions[-1] + pad],
        "showgrid": False,
        "title": {"text": label(knob), "standoff": 4},
    }
    note = "A dot is a setting; the line is the mean of a value. " if several else ""
    note += "Bars are 95% intervals over seeds." if has_bars else ""
    layout = {"xaxis": x_axis, "yaxis": {}}
    return figure(f"{sweep.metric} by {knob}", data, layout, note=note.strip())


def _line(x: Sequence[float], y: Any, line: dict[str, Any]) -> Figure:
    return {"type": "scatter", "mode": "lines", "x": x, "y": listed(y), "hoverinfo": "skip", "line": line}


def _importance(sweep: Sweep) -> Figure | None:
    shares = {knob: share for knob in sweep.knobs if (share := importance(sweep, knob)) is not None}
    if not shares:
        return None
    order = sorted(shares, key=lambda knob: shares[knob])
    bars: Figure = {
        "type": "bar",
        "orientation": "h",
        "x": listed(shares[knob] for knob in order),
        "y": [*range(len(order))],
        "marker": {"color": colour(0)},
        "hovertemplate": "%{x:.1%}<extra></extra>",
    }
    axis = {"tickvals": [*range(len(order))], "ticktext": [*map(label, order)], "showgrid": False}
    layout = {"xaxis": {"tickformat": ".0%", "range": [0, 1]}, "yaxis": axis, "bargap": 0.45}
    note = (
        "Share of the variance of the settings' means that a knob explains alone "
        "(ε² of a one-way analysis of variance)."
    )
    return figure("Importance of knobs", [bars], layout, note=note)


def _best_so_far(sweep: Sweep) -> Figure:
    """The best mean up to each setting, in the order of the sweep."""
    settings = _finite(sweep.settings)
    means = np.array([s.mean for s in settings])
    best = np.maximum.accumulate(means) if sweep.goal == "max" else np.minimum.accumulate(means)
    count = np.arange(1, len(settings) + 1)
    line = _line(count.tolist(), best, {"color": colour(1), "width": 1.6, "shape": "hv"})
    layout = {"xaxis": {"title": {"text": "settings", "standoff": 4}, "showgrid": False}, "yaxis": {}}
    data = [line, _dots(count, settings, opacity=0.5)]
    return figure("Best so far", data, layout, note="In the order of the sweep.")


def _parallel_coordinates(sweep: Sweep, ranked: list[Setting]) -> Figure | None:
    """A line for each setting over all knobs to its metric; the best in another colour, worse ones paler."""
    settings = _finite(ranked)
    if not settings:
        return None
    columns = [*sweep.knobs, sweep.metric]
    last = len(columns) - 1
    heights, annotations = [], []
    for x, name in enumerate(columns):
        axis = _axis([s.mean if x == last else s.knobs[name] for s in settings])
        ticks, texts = axis.ticks, axis.texts
        if x == last and len(ticks) > 2:
            ticks, texts = [ticks[0], ticks[-1]], [texts[0], texts[-1]]
        low, width = float(axis.positions.min()), float(np.ptp(axis.positions)) or 1.0
        heights.append((axis.positions - low) / width)
        anchor = {"xanchor": "right", "xshift": -5} if x == last else {"xanchor": "left", "xshift": 5}
        for tick, text in zip(ticks, texts, strict=True):
            at = {"x": x, "y": (tick - low) / width, "text": label(text), **anchor}
            annotations.append({**at, "showarrow": False, "bgcolor": "var(--bg)", "opacity": 0.85})
    data = []
    for rank in reversed(range(len(settings))):
        line = {"color": colour(0 if rank else 1), "width": 1.2 if rank else 2.4}
        trace = _line([*range(len(columns))], [height[rank] for height in heights], line)
        trace["text"] = [label(setting_name(settings[rank].knobs))]
        trace["opacity"] = max(0.08, 0.7 - 0.65 * rank / len(settings)) if rank else 1
        data.append(trace)
    verticals = []
    for x in range(len(columns)):
        ends = {"x0": x, "x1": x, "y0": 0, "y1": 1}
        verticals.append({"type": "line", **ends, "line": {"color": "var(--line)"}, "layer": "below"})
    x_axis = {
        "tickvals": [*range(len(columns))],
        "ticktext": [*map(label, columns)],
        "showgrid": False,
        "side": "top",
        "range": [-0.15, len(columns) - 0.8],
        "fixedrange": True,
    }
    layout = {
        "xaxis": x_axis,
        "yaxis": {"visible": False, "range": [-0.06, 1.06], "fixedrange": True},
        "annotations": annotations,
        "shapes": verticals,
    }
    note = "A line is a setting, the best in the second colour, worse ones paler."
    return figure("Settings side by side", data, layout, note=note, kind="tall wide")
