"""The page of jaxmodels find-rate: the losses as points and the smoothed loss as a line, over the rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmodels.analysis.rate_curve import points_shown
from jaxmodels.report.charts import Figure, colour, figure, listed
from jaxmodels.report.page import Page, escaped


def rate_page(name: str, found: Mapping[str, Any]) -> Page:
    """name: of the experiment's file; found: what commands.find_rate.find_rate gives."""
    document = Page(f"{name}: learning rate")
    document.add(f"<header><h1>{escaped(name)}: the loss as the learning rate rises</h1></header>")
    document.add(document.charts([_chart(found)]))
    return document


def _chart(found: Mapping[str, Any]) -> Figure:
    n = points_shown(found)
    rates, smoothed = listed(found["rates"][:n]), np.array(found["smoothed"][:n])
    margin = 0.1 * float(np.ptp(smoothed)) or 1.0  # losses beyond it are noise that would flatten the curve
    marked = {name: rate for name in ("steepest", "least") if (rate := found[name]) is not None}
    points = {"type": "scatter", "x": rates, "hovertemplate": "%{y:.4g} at %{x:.2e}<extra></extra>"}
    losses = {"mode": "markers", "marker": {"color": colour(1), "size": 4}, "y": listed(found["losses"][:n])}
    line = {"mode": "lines", "line": {"color": colour(0), "width": 2}, "y": listed(smoothed)}
    shape = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "line": {"color": "var(--ink)", "width": 1}}
    above = {"yref": "paper", "y": 1, "yanchor": "top", "xanchor": "left", "showarrow": False}
    layout = {
        "xaxis": {"type": "log", "title": {"text": "learning rate"}, "exponentformat": "e"},
        "yaxis": {"range": [float(smoothed.min()) - margin, float(smoothed.max()) + margin]},
        "shapes": [{**shape, "x0": rate, "x1": rate} for rate in marked.values()],
        "annotations": [{**above, "x": math.log10(rate), "text": name} for name, rate in marked.items()],
    }
    note = "; ".join(f"{name} at {rate:.1e}" for name, rate in marked.items())
    return figure("loss", [{**points, **losses}, {**points, **line}], layout, note=note, kind="tall")
