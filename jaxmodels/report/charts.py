"""Figures as plain dicts for Plotly.newPlot. Colours are names of CSS variables, which the page looks up for its theme.

A figure is {"id", "title", "legend": [(colour, name, value)], "note", "data", "layout"}. A trace of a
learning curve has, in place of x, what the page chooses from: "step", "seconds" and "flops" (those of one
step).
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmodels.console import number
from jaxmodels.report import downsample
from jaxmodels.report.classifier import ClassifierReport
from jaxmodels.report.read_run import Curve, Run

Figure = dict[str, Any]
COLOURS, DASHES = 8, ("solid", "dash", "dot", "dashdot")
MOST = 600  # buckets of all curves of a figure together
NAMES = {"grad_norm": "gradient norm", "top5": "top 5", "auc": "AUC", "macro_f1": "macro F1"}
LAST = ("learning_rate", "grad_norm", "examples per second", "steps per second", "time waited for input")
PERCENT = ("time waited for input",)


def colour(i: int) -> str:
    """The i-th colour, by name."""
    return f"var(--c{i % COLOURS})"


def label(text: str) -> str:
    """Text that Plotly shows as it is: it reads some HTML."""
    return html.escape(text, quote=False)


def curves(
    runs: Sequence[Run], more: Sequence[Mapping[str, Curve]], flops: Sequence[float | None]
) -> list[Figure]:
    """One figure for each metric: of one run its training and evaluations, of several the runs by colour.

    more: derived curves of each run; flops: of one step.
    """
    groups: dict[str, list[tuple[int, str, Curve]]] = {}
    splits: list[str] = ["train"]
    for i, run in enumerate(runs):
        for name, curve in (*run.curves.items(), *more[i].items()):
            split, _, metric = name.rpartition("/")
            if split and split not in splits:
                splits.append(split)
            groups.setdefault(metric, []).append((i, split, curve))
    order = sorted(groups, key=lambda m: (LAST.index(m) + 1 if m in LAST else 0, m != "loss"))
    return [_curves(metric, groups[metric], runs, splits, flops) for metric in order]


def _curves(
    metric: str, group: Any, runs: Sequence[Run], splits: list[str], flops: Sequence[float | None]
) -> Figure:
    data, legend, buckets, several = [], [], max(30, MOST // len(group)), len(runs) > 1
    for i, split, curve in sorted(group, key=lambda g: (g[0], g[1] != "train")):
        at = i if several else splits.index(split) if split else 0
        both = several and len({s for _, s, _ in group}) > 1
        name = f"{runs[i].name} {split}" if both else runs[i].name if several else split
        faint = both and split == "train"
        long = downsample.is_long(curve.value, buckets)
        few = len(curve.step) <= (2 if split in ("train", "") else 40)  # a line of one point cannot be seen
        line = {"color": colour(at), "width": 1.6, "dash": DASHES[at // COLOURS % len(DASHES)]}
        trace: Figure = {
            "type": "scatter",
            "mode": "lines+markers" if few else "lines",
            "name": label(name or metric),
            "line": line,
        }
        trace |= {
            "marker": {"size": 5, "color": colour(at)},
            "flops": flops[i],
            "opacity": 0.45 if faint else 1,
        }
        trace["hovertemplate"] = "%{y:.3~p}" if metric in PERCENT else "%{y:.4~g}"
        keep = downsample.kept(curve.value, buckets)
        points = {
            "step": listed(curve.step[keep]),
            "seconds": listed(curve.seconds[keep]),
            "y": listed(curve.value[keep]),
        }
        if long:
            data.append(
                {**trace, **points, "opacity": 0.3, "line": {**line, "width": 0.8}, "hoverinfo": "skip"}
            )
            del data[-1]["hovertemplate"]
            middle, mean = downsample.middles(curve.value, buckets)
            points = {
                "step": listed(curve.step[middle]),
                "seconds": listed(curve.seconds[middle]),
                "y": listed(mean),
            }
        data.append({**trace, **points})
        finite = curve.value[np.isfinite(curve.value)]
        last = _last(metric, finite[-1]) if len(finite) else "not finite"
        if not several:
            legend.append((at, "" if metric in LAST else split, last))
    y: Figure = {"tickformat": "~p"} if metric in PERCENT else {}  # as many digits as tell the ticks apart
    if metric in LAST and metric != "grad_norm":
        y["rangemode"] = "tozero"
    positive = all(v is None or v > 0 for trace in data for v in trace["y"])
    title = NAMES.get(metric, metric.replace("_", " "))
    return figure(
        title, data, {"yaxis": y, "hovermode": "x unified"}, legend=legend, curve=True, log=positive
    )


def _last(metric: str, x: float) -> str:
    if metric in PERCENT:
        return f"{x:.1%}"
    return f"{x:,.0f}" if metric.endswith("per second") and x > 100 else number(x)


def confusion(seen: ClassifierReport, about: str) -> Figure:
    """Rows are labels, columns what they were taken for; colour is the share of the row."""
    rows = seen.confusion / np.maximum(seen.confusion.sum(1, keepdims=True), 1)
    places, names = list(range(len(seen.classes))), [label(name) for name in seen.classes]
    few = len(places) <= 12
    trace: Figure = {
        "type": "heatmap",
        "z": _rows(rows),
        "x": places,
        "y": places,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
    }
    trace |= {"colorscale": [[0, "var(--panel)"], [1, "var(--c0)"]], "zmin": 0, "zmax": 1}
    trace["text"] = [[f"{n:,}" if n else "" for n in row] for row in seen.confusion.tolist()]
    trace["customdata"] = [[[a, b] for b in names] for a in names]
    trace["hovertemplate"] = "%{customdata[0]} taken for %{customdata[1]}: %{z:.1%} (%{text})<extra></extra>"
    if few:
        trace["texttemplate"] = "%{text}"
    ticks = {"tickvals": places, "ticktext": names} if len(places) <= 40 else {}
    axis: dict[str, Any] = {"showgrid": False, "zeroline": False, "ticks": "", **ticks}
    layout = {
        "xaxis": {**axis, "tickangle": -45, "title": {"text": "taken for"}, "constrain": "domain"},
        "yaxis": {**axis, "autorange": "reversed", "scaleanchor": "x", "constrain": "domain"},
    }
    note = f"{about}; rows are the labels, colour is the share of a row."
    return figure("Confusions", [trace], layout, note=note, kind="tall")


def reliability(seen: ClassifierReport) -> Figure:
    """Accuracy over confidence, with the diagonal that a calibrated classifier lies on."""
    diagonal: Figure = {"type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip"}
    diagonal["line"] = {"color": "var(--muted)", "width": 1, "dash": "dot"}
    trace: Figure = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": listed(seen.confidence),
        "y": listed(seen.right),
    }
    trace |= {"line": {"color": colour(0), "width": 1.6}, "customdata": listed(seen.share)}
    trace["marker"] = {"color": colour(0), "size": [float(5 + 14 * np.sqrt(share)) for share in seen.share]}
    trace["hovertemplate"] = (
        "confidence %{x:.3f}: accuracy %{y:.3f}, %{customdata:.1%} of the examples<extra></extra>"
    )
    layout = {"xaxis": {"title": {"text": "confidence"}, "range": [0, 1.03]}, "yaxis": {"range": [0, 1.05]}}
    note = f"Accuracy by confidence; larger dots are more examples. Expected calibration error {seen.calibration_error:.4f}."
    return figure("Reliability", [diagonal, trace], layout, note=note, kind="tall")


def roc(seen: ClassifierReport) -> Figure:
    """Each class against the rest; of many classes the twelve of the smallest area."""
    lowest = sorted(seen.roc.items(), key=lambda pair: pair[1][2])[:12]
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
        }
        trace |= {
            "line": {"color": colour(0 if k else 1), "width": 1.6 if k == 0 else 1},
            "opacity": 1 if k == 0 else 0.45,
        }
        data.append({**trace, "hovertemplate": f"%{{y:.3f}} at %{{x:.4f}}, area {area:.4f}"})
    layout = {
        "xaxis": {"title": {"text": "false positive rate"}, "range": [-0.01, 1.01]},
        "yaxis": {"range": [0, 1.02]},
    }
    mean = np.mean([area for _, _, area in seen.roc.values()]) if seen.roc else np.nan
    worst = f"; in the second colour {lowest[0][0]}, {lowest[0][1][2]:.4f}" if lowest else ""
    note = f"True positive rate of each class against the rest. Mean area {mean:.4f}{worst}."
    return figure("ROC", data[::-1], layout, note=note, kind="tall")


def figure(title: str, data: list[Any], layout: dict[str, Any], **more: Any) -> Figure:
    """A figure without a legend or a note, unless more says so."""
    return {"title": title, "legend": [], "note": "", "data": data, "layout": layout, **more}


def listed(values: Any) -> list[float | None]:
    """Six digits of each, and None for what is not finite."""
    return [float(f"{x:.6g}") if np.isfinite(x) else None for x in np.asarray([*values], float).tolist()]


def _rows(values: np.ndarray) -> list[list[float | None]]:
    return [listed(row) for row in values]
