"""Figures as plain dicts for Plotly.newPlot.

A figure is {"title", "legend": [(colour, name, value)], "note", "data", "layout"}. A trace of a learning
curve has, in place of x, what the page chooses from: "step", "seconds" and "flops" (those of one step).
Colours are names of CSS variables, which the page looks up for its theme.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.console import number
from jaxmodels.report import downsample
from jaxmodels.report.classifier import ClassifierReport
from jaxmodels.report.read_run import Curve, Run

Figure = dict[str, Any]
COLOURS, DASHES = 8, ("solid", "dash", "dot", "dashdot")
MOST_BUCKETS = 600  # of all curves of a figure together
MOST_TICKS, MOST_COUNTS = 40, 12  # classes up to which a confusion matrix names them, and writes its counts
MOST_ROC = 12  # classes whose ROC curves are drawn
TITLES = {"grad_norm": "gradient norm", "top5": "top 5", "auc": "AUC", "macro_f1": "macro F1"}
LAST = ("learning_rate", "grad_norm", "examples per second", "steps per second", "time waited for input")
PERCENT = ("time waited for input",)


class _NamedCurve(NamedTuple):
    """A curve of a figure. run: the run's index; split: "train", an evaluation's name, or "" for neither."""

    run: int
    split: str
    curve: Curve


def colour(i: int) -> str:
    """The i-th colour, by name."""
    return f"var(--c{i % COLOURS})"


def label(text: str) -> str:
    """Text that Plotly shows as it is: it reads some HTML."""
    return html.escape(text, quote=False)


def curves(
    runs: Sequence[Run], derived: Sequence[Mapping[str, Curve]], flops: Sequence[float | None]
) -> list[Figure]:
    """One figure for each metric: of one run its training and evaluations, of several the runs by colour.

    derived: further curves of each run; flops: of one step.
    """
    by_metric: dict[str, list[_NamedCurve]] = {}
    splits: list[str] = ["train"]
    for i, run in enumerate(runs):
        for name, curve in (*run.curves.items(), *derived[i].items()):
            split, _, metric = name.rpartition("/")
            if split and split not in splits:
                splits.append(split)
            by_metric.setdefault(metric, []).append(_NamedCurve(i, split, curve))
    order = sorted(by_metric, key=lambda m: (LAST.index(m) + 1 if m in LAST else 0, m != "loss"))
    return [_curves(metric, by_metric[metric], runs, splits, flops) for metric in order]


def _curves(
    metric: str,
    group: list[_NamedCurve],
    runs: Sequence[Run],
    splits: list[str],
    flops: Sequence[float | None],
) -> Figure:
    """The curves of one metric."""
    data, legend, several = [], [], len(runs) > 1
    buckets = max(30, MOST_BUCKETS // len(group))
    both = several and len({named.split for named in group}) > 1
    for run, split, curve in sorted(group, key=lambda named: (named.run, named.split != "train")):
        style = run if several else splits.index(split) if split else 0
        name = f"{runs[run].name} {split}" if both else runs[run].name if several else split
        few = len(curve.step) <= (2 if split in ("train", "") else 40)  # a line of one point cannot be seen
        trace: Figure = {
            "type": "scatter",
            "mode": "lines+markers" if few else "lines",
            "name": label(name or metric),
            "line": {"color": colour(style), "width": 1.6, "dash": DASHES[style // COLOURS % len(DASHES)]},
            "marker": {"size": 5, "color": colour(style)},
            "flops": flops[run],
            "opacity": 0.45 if both and split == "train" else 1,
            "hovertemplate": "%{y:.3~p}" if metric in PERCENT else "%{y:.4~g}",
        }
        data += _downsampled(trace, curve, buckets)
        if not several:
            legend.append((style, "" if metric in LAST else split, _last_value(metric, curve)))
    y: Figure = {"tickformat": "~p"} if metric in PERCENT else {}  # as many digits as tell the ticks apart
    if metric in LAST and metric != "grad_norm":
        y["rangemode"] = "tozero"
    positive = all(value is None or value > 0 for trace in data for value in trace["y"])
    title = TITLES.get(metric, metric.replace("_", " "))
    layout = {"yaxis": y, "hovermode": "x unified"}
    return figure(title, data, layout, legend=legend, curve=True, log=positive)


def _downsampled(trace: Figure, curve: Curve, buckets: int) -> list[Figure]:
    """The trace of a curve; of a long one, its extremes in a pale line and the means of its buckets."""
    kept = downsample.extremes(curve.value, buckets)
    extremes = _points(curve, kept, curve.value[kept])
    if not downsample.is_long(curve.value, buckets):
        return [{**trace, **extremes}]
    pale = {**trace, **extremes, "opacity": 0.3, "line": {**trace["line"], "width": 0.8}, "hoverinfo": "skip"}
    del pale["hovertemplate"]
    middle, mean = downsample.bucket_means(curve.value, buckets)
    return [pale, {**trace, **_points(curve, middle, mean)}]


def _points(curve: Curve, index: np.ndarray, y: np.ndarray) -> Figure:
    return {"step": listed(curve.step[index]), "seconds": listed(curve.seconds[index]), "y": listed(y)}


def _last_value(metric: str, curve: Curve) -> str:
    finite = curve.value[np.isfinite(curve.value)]
    if not len(finite):
        return "not finite"
    if metric in PERCENT:
        return f"{finite[-1]:.1%}"
    return f"{finite[-1]:,.0f}" if metric.endswith("per second") and finite[-1] > 100 else number(finite[-1])


def confusion(report: ClassifierReport, about: str) -> Figure:
    """The confusion matrix: rows are labels, columns predictions; colour is the share of the row."""
    shares = report.confusion / np.maximum(report.confusion.sum(1, keepdims=True), 1)
    positions, names = list(range(len(report.classes))), [label(name) for name in report.classes]
    trace: Figure = {
        "type": "heatmap",
        "z": [listed(row) for row in shares],
        "x": positions,
        "y": positions,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "colorscale": [[0, "var(--panel)"], [1, "var(--c0)"]],
        "zmin": 0,
        "zmax": 1,
        "text": [[f"{n:,}" if n else "" for n in row] for row in report.confusion.tolist()],
        "customdata": [[[a, b] for b in names] for a in names],
        "hovertemplate": "%{customdata[0]} predicted as %{customdata[1]}: %{z:.1%} (%{text})<extra></extra>",
    }
    if len(positions) <= MOST_COUNTS:
        trace["texttemplate"] = "%{text}"
    ticks = {"tickvals": positions, "ticktext": names} if len(positions) <= MOST_TICKS else {}
    axis: dict[str, Any] = {"showgrid": False, "zeroline": False, "ticks": "", **ticks}
    layout = {
        "xaxis": {**axis, "tickangle": -45, "title": {"text": "predicted class"}, "constrain": "domain"},
        "yaxis": {**axis, "autorange": "reversed", "scaleanchor": "x", "constrain": "domain"},
    }
    note = f"{about}; rows are the labels, colour is the share of a row."
    return figure("Confusion matrix", [trace], layout, note=note, kind="tall")


def reliability(report: ClassifierReport) -> Figure:
    """Accuracy over confidence, with the diagonal that a calibrated classifier lies on."""
    diagonal: Figure = {"type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip"}
    diagonal["line"] = {"color": "var(--muted)", "width": 1, "dash": "dot"}
    confidence, accuracy, share, error = report.calibration
    hover = "confidence %{x:.3f}: accuracy %{y:.3f}, %{customdata:.1%} of the examples<extra></extra>"
    trace: Figure = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": listed(confidence),
        "y": listed(accuracy),
        "line": {"color": colour(0), "width": 1.6},
        "marker": {"color": colour(0), "size": [float(5 + 14 * np.sqrt(x)) for x in share]},
        "customdata": listed(share),
        "hovertemplate": hover,
    }
    layout = {"xaxis": {"title": {"text": "confidence"}, "range": [0, 1.03]}, "yaxis": {"range": [0, 1.05]}}
    note = f"Accuracy by confidence; larger dots are more examples. Expected calibration error {error:.4f}."
    return figure("Reliability diagram", [diagonal, trace], layout, note=note, kind="tall")


def roc(report: ClassifierReport) -> Figure:
    """Each class against the rest; of many classes those of the smallest area."""
    lowest = sorted(report.roc.items(), key=lambda item: item[1].area)[:MOST_ROC]
    data = []
    for k, (name, (x, y, area)) in enumerate(lowest):
        dense = np.searchsorted(x, np.linspace(0, 1, 120) ** 3)  # most points where the curve rises
        keep = np.unique(np.append(dense, [0, len(x) - 1]).clip(0, len(x) - 1))
        trace: Figure = {
            "type": "scatter",
            "mode": "lines",
            "name": label(name),
            "x": listed(x[keep]),
            "y": listed(y[keep]),
            "line": {"color": colour(0 if k else 1), "width": 1 if k else 1.6},
            "opacity": 0.45 if k else 1,
            "hovertemplate": f"%{{y:.3f}} at %{{x:.4f}}, area {area:.4f}",
        }
        data.append(trace)
    layout = {
        "xaxis": {"title": {"text": "false positive rate"}, "range": [-0.01, 1.01]},
        "yaxis": {"range": [0, 1.02]},
    }
    mean = np.mean([curve.area for curve in report.roc.values()]) if report.roc else np.nan
    worst = f"; in the second colour {lowest[0][0]}, {lowest[0][1].area:.4f}" if lowest else ""
    note = f"True positive rate of each class against the rest. Mean area {mean:.4f}{worst}."
    return figure("ROC curves", data[::-1], layout, note=note, kind="tall")


def figure(title: str, data: list[Any], layout: dict[str, Any], **more: Any) -> Figure:
    """A figure without a legend or a note, unless more has one."""
    return {"title": title, "legend": [], "note": "", "data": data, "layout": layout, **more}


def listed(values: Any) -> list[float | None]:
    """Six digits of each value, and None for what is not finite."""
    return [float(f"{x:.6g}") if np.isfinite(x) else None for x in np.asarray([*values], float).tolist()]
