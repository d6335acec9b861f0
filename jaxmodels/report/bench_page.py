"""The page of several records of the benchmark: a table and a bar chart of speeds, the first record as 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxmodels.console import number
from jaxmodels.report import page
from jaxmodels.report.charts import Figure, colour, figure, label, listed
from jaxmodels.report.page import Page, escaped


def bench_page(
    names: Sequence[str], records: Sequence[Mapping[str, Any]], comparisons: Sequence[Any]
) -> Page:
    """names: of the records; comparisons: jaxmodels.bench.compare.Comparison of each with the first."""
    document = Page("Benchmark")
    document.add(f"<header><h1>Benchmark</h1><p class='muted'>{escaped('; '.join(names))}</p></header>")
    titles = list(dict.fromkeys(one.title for one in comparisons))
    note = f"Speed against {names[0]}; lines are 95% intervals over rounds."
    document.section("Speed", _legend(names), document.charts([_chart(names, titles, comparisons, note)]))
    rows = [
        [one.title, names[one.record], f"{1 / one.ratio:.3f}", f"{1 / one.high:.3f} to {1 / one.low:.3f}"]
        for one in comparisons
        if one.low > 0
    ]
    document.section("Ratios", page.table(["", "record", "speed", "95% interval"], rows, "llrr"))
    for name, record in zip(names, records, strict=True):
        document.section(name, page.table(*results_table(record)))
    return document


def results_table(record: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of a record's results."""
    head = ["", "of", "median ms", "5% to 95%", "per second", "MFU", "compile s", "from cache s", "plan MiB"]
    rows = []
    for result in record["results"]:
        unit = str(result.get("unit", ""))
        rows.append(
            [
                f"{result['case']} {result['program']}",
                str(result.get("of", "")),
                _number(result, "median_ms"),
                f"{_number(result, 'p5_ms')} to {_number(result, 'p95_ms')}",
                f"{_number(result, f'{unit}_per_s')} {unit}",
                _share(result),
                _number(result, "compile_cold_s"),
                _number(result, "compile_cached_s"),
                _number({"x": (result.get("planned_bytes_per_device") or 0) / 2**20}, "x"),
            ]
        )
    return head, rows


def _share(result: Mapping[str, Any]) -> str:
    """Model FLOPs utilisation, and of what."""
    for name, of in (("mfu_of_datasheet", "data sheet"), ("mfu_of_measured_product", "measured product")):
        if isinstance(share := result.get(name), int | float):
            return f"{share:.1%} of the {of}"
    return "refused"


def _number(result: Mapping[str, Any], name: str) -> str:
    value = result.get(name)
    return number(value) if isinstance(value, int | float) else ""


def _legend(names: Sequence[str]) -> str:
    return f'<div class="bar">{"".join(page.dot(i, name) for i, name in enumerate(names))}</div>'


def _chart(names: Sequence[str], titles: Sequence[str], comparisons: Sequence[Any], note: str) -> Figure:
    bars = []
    for n in range(1, len(names)):
        own = {one.title: one for one in comparisons if one.record == n and one.low > 0}
        shown = [title for title in titles if title in own]
        speed = [1 / own[title].ratio for title in shown]
        bars.append(
            {
                "type": "bar",
                "x": listed(speed),
                "y": [titles.index(title) for title in shown],
                "orientation": "h",
                "marker": {"color": colour(n)},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": listed(1 / own[t].low - s for t, s in zip(shown, speed, strict=True)),
                    "arrayminus": listed(s - 1 / own[t].high for t, s in zip(shown, speed, strict=True)),
                    "color": "var(--ink)",
                    "thickness": 1,
                },
                "hovertemplate": "%{x:.3f}<extra></extra>",
            }
        )
    axis = {"tickvals": [*range(len(titles))], "ticktext": [*map(label, titles)], "showgrid": False}
    layout = {
        "xaxis": {"title": {"text": "speed, first record = 1"}, "rangemode": "tozero"},
        "yaxis": {**axis, "autorange": "reversed", "automargin": True},
        "shapes": [
            {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "line": {"width": 1}}
        ],
    }
    return figure("Speed", bars, layout, note=note, kind="tall")
