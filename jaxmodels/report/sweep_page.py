"""The page of a sweep."""

from __future__ import annotations

import math
import shlex
from typing import Any

import numpy as np

from jaxmodels.console import duration, number, told_apart
from jaxmodels.report import charts, page, run_page
from jaxmodels.report.charts import Figure, colour, figure, label, listed
from jaxmodels.report.page import Page, escaped
from jaxmodels.report.read_run import Run, is_number
from jaxmodels.report.read_sweep import Swept, importance
from jaxmodels.sweeps.statistics import Setting

ROWS, CURVES, TICKS = 200, 8, 9  # settings in the table, members with curves, values written at an axis
WIDE = 10.0  # times the smallest from which on numbers are shown by their logarithm


def sweep_page(swept: Swept) -> Page:
    """What was tried, what came of it, and how far it can be trusted."""
    run, said = swept.run, Page(f"{swept.run.name}: sweep")
    ranked = _ranked(swept)
    said.add(_header(swept, ranked), run_page.notes(run.notes))
    if ranked:
        about = f"Means over seeds with 95% intervals (Student's). {swept.verdict[:1].upper()}{swept.verdict[1:]}."
        more = f" The best {ROWS} of {len(ranked)} settings." if len(ranked) > ROWS else ""
        said.section(
            "Settings", f'<p class="muted">{escaped(about + more)}</p>', _table(swept, ranked[:ROWS])
        )
        figures = [_by_knob(swept, knob) for knob in swept.knobs]
        if len(swept.knobs) > 1:
            figures += [_importance(swept)]
        if len(ranked) > 2:
            figures += [_best_so_far(swept)]
        if len(swept.knobs) > 1:
            figures += [_parallel(swept, ranked)]
        said.section("Knobs", said.charts([f for f in figures if f]))
    best, names = _curves(swept, ranked)
    if best:
        legend = f'<div class="bar">{"".join(page.dot(i, name) for i, name in enumerate(names))}</div>'
        about = (
            f"One member of each of the best {len(names)} settings."
            if len(swept.members) > len(names)
            else ""
        )
        muted = f'<p class="muted">{escaped(about)}</p>' if about else ""
        said.section(
            "Learning curves",
            legend,
            page.choices(run_page.axes(best, [None]), True),
            muted,
            said.charts(_of(best, swept)),
        )
    ran = f"<div><h3>Where and how</h3>{page.facts([(k, v) for k, v in run_page.about(run) if k != 'state'])}</div>"
    fixed = page.facts([(k, run_page.shown(v)) for k, v in run.knobs.items()])
    said.section(
        "Sweep",
        f'<div class="two"><div><h3>Knobs of all</h3>{fixed}</div>{ran}</div>',
        run_page.again(run),
        _take(swept),
    )
    said.add(run_page.footer())
    return said


def _ranked(swept: Swept) -> list[Setting]:
    sign = -1 if swept.goal == "max" else 1
    return sorted(
        swept.settings, key=lambda s: (not math.isfinite(s.mean), -(s.stopped or 1 << 62), sign * s.mean)
    )


def _name(knobs: dict[str, Any]) -> str:
    return ", ".join(f"{k} {run_page.shown(v)}" for k, v in knobs.items()) or "all"


def _header(swept: Swept, ranked: list[Setting]) -> str:
    run, best, score = swept.run, swept.best, ""
    if best is not None:
        spread = f" ± {number(best.interval)}" if best.interval is not None else ""
        score = (
            f'<div class="score"><span>best {escaped(swept.metric)}</span><b>{escaped(number(best.mean))}</b>'
        )
        score += f"<p>{escaped(_name(best.knobs))}{escaped(spread and ', interval' + spread)}</p></div>"
    ends = [str(member.result.get("exit", "")) for member in swept.members]
    wall, compiling = run.result.get("wall_s"), run.result.get("compile_s")
    pairs = [
        ("members", f"{len(ends)}"),
        ("settings", f"{len(ranked)}"),
        ("seeds", f"{max((len(s.values) for s in ranked), default=0)}" if swept.seed else ""),
        ("not finished", f"{ends.count('')}" if "" in ends else ""),
        ("stopped early", f"{n}" if (n := sum(end.startswith("stopped") for end in ends)) else ""),
        ("diverged", f"{n}" if (n := sum(end.startswith("NotFinite") for end in ends)) else ""),
        ("in all", "" if wall is None else duration(wall)),
        ("compilation", "" if compiling is None else f"{compiling:.1f} s"),
    ]
    about = f'<p class="muted">{escaped(run.about)}</p>' if run.about else ""
    head = f'<div class="head"><div><h1>{escaped(run.name)}</h1>{about}</div>{score}</div>'
    return f"<header>{head}{page.facts(pairs, 'facts')}</header>"


def _table(swept: Swept, ranked: list[Setting]) -> str:
    rows = []
    for s in ranked:
        against = swept.compared.get(repr(s.knobs))
        remark = [f"{s.diverged} lost"] if s.diverged else []
        remark += [f"stopped at step {s.stopped:,}"] if s.stopped else []
        rows.append(
            [
                *(run_page.shown(v) for v in s.knobs.values()),
                number(s.mean) if math.isfinite(s.mean) else "",
                f"± {number(s.interval)}" if s.interval is not None else "",
                str(len(s.values)),
                run_page.difference(against.difference) if against else "best" if s is swept.best else "",
                f"{against.p:.2g}" if against and against.p is not None else "",
                ", ".join(remark),
            ]
        )
    head = [*swept.knobs, swept.metric, "95%", "seeds", "to the best", "p (Holm)", ""]
    return page.table(head, rows, "l" * len(swept.knobs) + "rrrrrl")


def _scale(values: list[Any]) -> tuple[np.ndarray, list[float], list[str], bool]:
    """(places of a knob's values, places with a text, the texts, whether they are logarithms)."""
    if all(is_number(v) for v in values):
        log = min(values) > 0 and max(values) / min(values) >= WIDE
        place = np.log10(values) if log else np.array(values, float)
        ticks = sorted({*values}) if len({*values}) <= TICKS else [min(values), max(values)]
        return place, (np.log10(ticks) if log else np.array(ticks, float)).tolist(), told_apart(ticks), log
    kinds = list(dict.fromkeys(map(run_page.shown, values)))
    places = np.array([kinds.index(run_page.shown(v)) for v in values], float)
    return places, [*map(float, range(len(kinds)))], kinds, False


def _known(swept: Swept) -> list[Setting]:
    return [s for s in swept.settings if math.isfinite(s.mean)]


def _dots(x: Any, settings: list[Setting], **more: Any) -> Figure:
    trace: Figure = {
        "type": "scatter",
        "mode": "markers",
        "x": listed(x),
        "y": listed(s.mean for s in settings),
    }
    trace["text"] = [label(_name(s.knobs)) for s in settings]
    trace["hovertemplate"] = "%{text}: %{y:.4~g}<extra></extra>"
    return {**trace, "marker": {"color": colour(0), "size": 6}, **more}


def _by_knob(swept: Swept, knob: str) -> Figure | None:
    """The settings' means over one knob, and where others vary too, the mean of each value."""
    known = _known(swept)
    if len({repr(s.knobs[knob]) for s in known}) < 2:
        return None
    place, ticks, texts, _ = _scale([s.knobs[knob] for s in known])
    several = len({*place.tolist()}) < len(known)
    bars = {"type": "data", "array": listed(s.interval or 0 for s in known), "thickness": 1, "width": 3}
    error = (
        {"error_y": {**bars, "color": colour(0)}} if any(s.interval for s in known) and not several else {}
    )
    data = [_dots(place, known, **error, **({"opacity": 0.5} if several else {}))]
    at = sorted({*place.tolist()})
    if several or len(at) <= TICKS:
        means = [np.mean([s.mean for s, p in zip(known, place, strict=True) if p == x]) for x in at]
        line: Figure = {"type": "scatter", "mode": "lines", "x": at, "y": listed(means), "hoverinfo": "skip"}
        data.insert(0, {**line, "line": {"color": colour(1 if several else 0), "width": 1.6}})
    pad = 0.06 * (max(at) - min(at))
    axis = {
        "tickvals": ticks,
        "ticktext": [*map(label, texts)],
        "range": [min(at) - pad, max(at) + pad],
        "showgrid": False,
    }
    lost = "A dot is a setting; the line is the mean of a value. " if several else ""
    bars_said = "Bars are 95% intervals over seeds." if error else ""
    layout = {"xaxis": {**axis, "title": {"text": label(knob), "standoff": 4}}, "yaxis": {}}
    return figure(f"{swept.metric} by {knob}", data, layout, note=(lost + bars_said).strip())


def _importance(swept: Swept) -> Figure | None:
    shares = {knob: share for knob in swept.knobs if (share := importance(swept, knob)) is not None}
    if not shares:
        return None
    order = sorted(shares, key=lambda knob: shares[knob])
    bar: Figure = {
        "type": "bar",
        "orientation": "h",
        "x": listed(shares[k] for k in order),
        "y": [*range(len(order))],
    }
    bar |= {"marker": {"color": colour(0)}, "hovertemplate": "%{x:.1%}<extra></extra>"}
    axis = {"tickvals": [*range(len(order))], "ticktext": [*map(label, order)], "showgrid": False}
    layout = {"xaxis": {"tickformat": ".0%", "range": [0, 1]}, "yaxis": axis, "bargap": 0.45}
    note = "Share of the variance of the settings' means that a knob explains alone (ε² of a one-way analysis of variance)."
    return figure("Importance of knobs", [bar], layout, note=note)


def _best_so_far(swept: Swept) -> Figure:
    """In the order in which settings came."""
    known = _known(swept)
    means = np.array([s.mean for s in known])
    best = np.maximum.accumulate(means) if swept.goal == "max" else np.minimum.accumulate(means)
    at = np.arange(1, len(known) + 1)
    line: Figure = {
        "type": "scatter",
        "mode": "lines",
        "x": listed(at),
        "y": listed(best),
        "hoverinfo": "skip",
    }
    line["line"] = {"color": colour(1), "width": 1.6, "shape": "hv"}
    layout = {"xaxis": {"title": {"text": "settings", "standoff": 4}, "showgrid": False}, "yaxis": {}}
    return figure(
        "Best so far", [line, _dots(at, known, opacity=0.5)], layout, note="In the order of the sweep."
    )


def _parallel(swept: Swept, ranked: list[Setting]) -> Figure:
    """A line for each setting over all knobs to its metric; the best in another colour, worse ones paler."""
    known = [s for s in ranked if math.isfinite(s.mean)][:ROWS]
    columns = [*swept.knobs, swept.metric]
    heights, notes = [], []
    for x, name in enumerate(columns):
        place, ticks, texts, _ = _scale([s.mean if x == len(swept.knobs) else s.knobs[name] for s in known])
        if x == len(swept.knobs) and len(ticks) > 2:
            ticks, texts = [ticks[0], ticks[-1]], [texts[0], texts[-1]]
        low, wide = float(place.min()), float(np.ptp(place)) or 1.0
        heights.append((place - low) / wide)
        for tick, text in zip(ticks, texts, strict=True):
            last = x == len(columns) - 1
            note = {
                "x": x,
                "y": (tick - low) / wide,
                "text": label(text),
                "showarrow": False,
                "bgcolor": "var(--bg)",
            }
            notes.append(
                {**note, "xanchor": "right" if last else "left", "xshift": -5 if last else 5, "opacity": 0.85}
            )
    data = []
    for rank, s in reversed([*enumerate(known)]):
        best = rank == 0
        line: Figure = {
            "type": "scatter",
            "mode": "lines",
            "x": [*range(len(columns))],
            "text": [label(_name(s.knobs))],
        }
        line["y"] = listed(height[rank] for height in heights)
        line |= {
            "line": {"color": colour(1 if best else 0), "width": 2.4 if best else 1.2},
            "hoverinfo": "skip",
        }
        data.append({**line, "opacity": 1 if best else max(0.08, 0.7 - 0.65 * rank / len(known))})
    lines = [
        {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": {"color": "var(--line)"}}
        for x in range(len(columns))
    ]
    names = {
        "tickvals": [*range(len(columns))],
        "ticktext": [*map(label, columns)],
        "showgrid": False,
        "side": "top",
    }
    layout = {
        "xaxis": {**names, "range": [-0.15, len(columns) - 0.8], "fixedrange": True},
        "yaxis": {"visible": False, "range": [-0.06, 1.06], "fixedrange": True},
        "annotations": notes,
        "shapes": [{**line, "layer": "below"} for line in lines],
    }
    about = "A line is a setting, the best in the second colour, worse ones paler."
    return figure("Settings side by side", data, layout, note=about, kind="tall wide")


def _curves(swept: Swept, ranked: list[Setting]) -> tuple[list[Run], list[str]]:
    """(a member of each of the best settings, their names)."""
    first: dict[str, Run] = {}
    for member in swept.members:
        knobs = {k: v for k, v in member.knobs.items() if k != swept.seed}
        if member.curves:
            first.setdefault(repr(knobs), member)
    order = [*(repr(s.knobs) for s in ranked), *first]
    chosen = [first[key] for key in dict.fromkeys(order) if key in first][:CURVES]
    return chosen, [run.name for run in chosen]


def _of(runs: list[Run], swept: Swept) -> list[Figure]:
    """Curves of the loss and of what the sweep is about."""
    kept = ("loss", swept.metric.rpartition("/")[2])
    for run in runs:
        run.curves = {name: curve for name, curve in run.curves.items() if name.rpartition("/")[2] in kept}
    return charts.curves(runs, [{} for _ in runs], [None for _ in runs])


def _take(swept: Swept) -> str:
    """The command that makes a run of the best member."""
    if swept.best is None:
        return ""
    wanted = [
        m
        for m in swept.members
        if {k: v for k, v in m.knobs.items() if k != swept.seed} == swept.best.knobs
        and is_number(m.metrics.get(swept.metric))
    ]
    if not wanted:
        return ""
    best = (max if swept.goal == "max" else min)(wanted, key=lambda m: m.metrics[swept.metric])
    words = ["jaxmodels", "sweep", str(swept.run.path), "--take", best.name, "--folder", f"runs/{best.name}"]
    return f"<h3>The best member as a run of its own</h3><pre>{escaped(shlex.join(words))}</pre>"
