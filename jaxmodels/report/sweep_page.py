"""The page of a sweep."""

from __future__ import annotations

import math
import shlex
from typing import Any

from jaxmodels.console import duration, number
from jaxmodels.report import charts, page, run_page, sweep_charts
from jaxmodels.report.charts import Figure
from jaxmodels.report.page import Page, escaped
from jaxmodels.report.read_run import Run, is_number
from jaxmodels.report.read_sweep import Sweep
from jaxmodels.report.sweep_charts import setting_name
from jaxmodels.sweeps.statistics import Setting

MOST_ROWS, MOST_CURVES = 200, 8  # settings in the table, members with curves


def sweep_page(sweep: Sweep) -> Page:
    """Settings with their statistics, influence of the knobs, and curves of the best."""
    run, document = sweep.run, Page(f"{sweep.run.name}: sweep")
    ranked = _ranked(sweep)
    document.add(_header(sweep, ranked), run_page.notes(run.notes))
    if ranked:
        verdict = f"{sweep.verdict[:1].upper()}{sweep.verdict[1:]}."
        about = f"Means over seeds with 95% intervals (Student's t). {verdict}"
        if len(ranked) > MOST_ROWS:
            about += f" The best {MOST_ROWS} of {len(ranked)} settings."
        muted = f'<p class="muted">{escaped(about)}</p>'
        document.section("Settings", muted, _table(sweep, ranked[:MOST_ROWS]))
        document.section("Knobs", document.charts(sweep_charts.figures(sweep, ranked[:MOST_ROWS])))
    best = _best_members(sweep, ranked)
    if best:
        dots = "".join(page.dot(i, run.name) for i, run in enumerate(best))
        controls = page.choices(run_page.axes(best, [None]), True)
        about = f"One member of each of the best {len(best)} settings."
        muted = f'<p class="muted">{escaped(about)}</p>' if len(sweep.members) > len(best) else ""
        curves = document.charts(_curves(best, sweep))
        document.section("Learning curves", f'<div class="bar">{dots}</div>', controls, muted, curves)
    facts = page.facts([(name, fact) for name, fact in run_page.environment_facts(run) if name != "state"])
    knobs = page.facts([(name, run_page.knob_text(value)) for name, value in run.knobs.items()])
    columns = f"<div><h3>Knobs of all</h3>{knobs}</div><div><h3>Where and how</h3>{facts}</div>"
    document.section(
        "Sweep", f'<div class="two">{columns}</div>', run_page.command(run), _extract_command(sweep)
    )
    document.add(run_page.footer())
    return document


def _ranked(sweep: Sweep) -> list[Setting]:
    """The settings, the best first; those that halving stopped come after, the last stopped first."""
    sign = -1 if sweep.goal == "max" else 1

    def rank(s: Setting) -> tuple[bool, int, float]:
        return not math.isfinite(s.mean), -(s.stopped or 1 << 62), sign * s.mean

    return sorted(sweep.settings, key=rank)


def _header(sweep: Sweep, ranked: list[Setting]) -> str:
    run, best, score = sweep.run, sweep.best, ""
    if best is not None:
        interval = f", interval ± {number(best.interval)}" if best.interval is not None else ""
        title = f"<span>best {escaped(sweep.metric)}</span><b>{escaped(number(best.mean))}</b>"
        about = f"<p>{escaped(setting_name(best.knobs))}{escaped(interval)}</p>"
        score = f'<div class="score">{title}{about}</div>'
    exits = [str(member.result.get("exit", "")) for member in sweep.members]
    stopped = sum(text.startswith("stopped") for text in exits)
    diverged = sum(text.startswith("NotFinite") for text in exits)
    wall, compilation = run.result.get("wall_s"), run.result.get("compile_s")
    seeds = max((len(s.values) for s in ranked), default=0)
    pairs = [
        ("members", f"{len(exits)}"),
        ("settings", f"{len(ranked)}"),
        ("seeds", f"{seeds}" if sweep.seed else ""),
        ("not finished", f"{exits.count('')}" if "" in exits else ""),
        ("stopped early", f"{stopped}" if stopped else ""),
        ("diverged", f"{diverged}" if diverged else ""),
        ("total", "" if wall is None else duration(wall)),
        ("compilation", "" if compilation is None else f"{compilation:.1f} s"),
    ]
    about = f'<p class="muted">{escaped(run.about)}</p>' if run.about else ""
    head = f'<div class="head"><div><h1>{escaped(run.name)}</h1>{about}</div>{score}</div>'
    return f"<header>{head}{page.facts(pairs, 'facts')}</header>"


def _table(sweep: Sweep, ranked: list[Setting]) -> str:
    rows = []
    for s in ranked:
        comparison = sweep.compared.get(repr(s.knobs))
        difference = run_page.difference(comparison.difference) if comparison else ""
        p = f"{comparison.p:.2g}" if comparison and comparison.p is not None else ""
        remarks = [f"{s.diverged} diverged"] if s.diverged else []
        remarks += [f"stopped at step {s.stopped:,}"] if s.stopped else []
        rows.append(
            [
                *map(run_page.knob_text, s.knobs.values()),
                number(s.mean) if math.isfinite(s.mean) else "",
                f"± {number(s.interval)}" if s.interval is not None else "",
                str(len(s.values)),
                "best" if s is sweep.best else difference,
                p,
                ", ".join(remarks),
            ]
        )
    head = [*sweep.knobs, sweep.metric, "95%", "seeds", "to the best", "p (Holm)", ""]
    return page.table(head, rows, "l" * len(sweep.knobs) + "rrrrrl")


def _without_seed(member: Run, sweep: Sweep) -> dict[str, Any]:
    return {name: value for name, value in member.knobs.items() if name != sweep.seed}


def _best_members(sweep: Sweep, ranked: list[Setting]) -> list[Run]:
    """A member with curves of each of the best settings."""
    first: dict[str, Run] = {}
    for member in sweep.members:
        if member.curves:
            first.setdefault(repr(_without_seed(member, sweep)), member)
    order = dict.fromkeys([*(repr(s.knobs) for s in ranked), *first])
    return [first[knobs] for knobs in order if knobs in first][:MOST_CURVES]


def _curves(members: list[Run], sweep: Sweep) -> list[Figure]:
    """Curves of the loss and of the sweep's metric."""
    kept = ("loss", sweep.metric.rpartition("/")[2])
    for member in members:
        curves = member.curves.items()
        member.curves = {name: curve for name, curve in curves if name.rpartition("/")[2] in kept}
    return charts.curves(members, [{} for _ in members], [None for _ in members])


def _extract_command(sweep: Sweep) -> str:
    """The command that makes a run of the best member."""
    if sweep.best is None:
        return ""
    members = [
        member
        for member in sweep.members
        if _without_seed(member, sweep) == sweep.best.knobs and is_number(member.metrics.get(sweep.metric))
    ]
    if not members:
        return ""
    best = (max if sweep.goal == "max" else min)(members, key=lambda member: member.metrics[sweep.metric])
    words = ["jaxmodels", "sweep", str(sweep.run.path), "--take", best.name, "--folder", f"runs/{best.name}"]
    return f"<h3>The best member as a run of its own</h3><pre>{escaped(shlex.join(words))}</pre>"
