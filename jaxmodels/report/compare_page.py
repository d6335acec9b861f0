"""The page of several runs beside each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxmodels.console import duration, number
from jaxmodels.report import charts, page, run_page
from jaxmodels.report.model import Model
from jaxmodels.report.page import Page, escaped
from jaxmodels.report.read_run import Run, is_number, rates


def compare_page(runs: list[Run], models: list[Model | None]) -> Page:
    """Curves together, and what differs: knobs, results, environments."""
    make_names_unique(runs)
    names = [run.name for run in runs]
    document = Page(f"{len(runs)} runs: report")
    subtitle = f'<p class="muted">{escaped(", ".join(names))}</p>'
    document.add(f"<header><h1>{len(runs)} runs</h1>{subtitle}</header>")
    document.add(run_page.notes([f"{run.name}: {note}" for run in runs for note in run.notes]))

    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    baselines = list(dict.fromkeys(name for run in runs for name in run_page.baselines(run)))
    rows = []
    for name in metrics:
        of_runs = [number(run.metrics[name]) if name in run.metrics else "" for run in runs]
        rows.append([name, *of_runs, *(_of_baseline(runs, baseline, name) for baseline in baselines)])
    rows += [[*row, *[""] * len(baselines)] for row in _costs(runs, models)]
    document.section("Results", page.table(["", *names, *baselines], rows))

    derived = [rates(run, run_page.batch_of(run, model)) for run, model in zip(runs, models, strict=True)]
    figures = charts.curves(runs, derived, [model.step_flops if model else None for model in models])
    legend = f'<div class="bar">{"".join(page.dot(i, name) for i, name in enumerate(names))}</div>'
    has_training = any(name.startswith("train/") for run in runs for name in run.curves)
    paler = '<p class="muted">Paler: training.</p>' if has_training else ""
    controls = page.choices(run_page.axes(runs, models), True)
    document.section("Learning curves", legend, controls, paler, document.charts(figures))

    def knobs(run: Run) -> dict[str, str]:
        return {name: run_page.knob_text(value) for name, value in run.knobs.items()}

    def environment(run: Run) -> dict[str, str]:
        return dict(run_page.environment_facts(run))

    document.section("What differs", _differences(runs, knobs, "knob"))
    document.section("Where and how they ran", _differences(runs, environment, ""))
    document.add(run_page.footer())
    return document


def make_names_unique(runs: list[Run]) -> None:
    """Runs whose folders have one name get that of the parent folder too, where it differs, else a number."""

    def with_parent(run: Run, _: int) -> str:
        return f"{run.path.resolve().parent.name}/{run.path.resolve().name}"

    def with_number(run: Run, i: int) -> str:
        return f"{run.name} ({i + 1})"

    for longer in (with_parent, with_number):
        names = [run.name for run in runs]
        others = [longer(run, i) for i, run in enumerate(runs)]
        for i, run in enumerate(runs):
            if names.count(names[i]) > 1 and others.count(others[i]) == 1:
                run.name = others[i]


def _of_baseline(runs: list[Run], baseline: str, metric: str) -> str:
    """The metric of a baseline, by the first run that has it."""
    values = [run_page.baselines(run).get(baseline, {}).get(metric) for run in runs]
    return next((number(x) for x in values if x is not None and is_number(x)), "")


def _costs(runs: list[Run], models: list[Model | None]) -> list[list[str]]:
    def grouped_digits(x: Any) -> str:
        return f"{x:,.0f}"

    kinds: dict[str, tuple[str, Callable[[Any], str]]] = {
        "steps": ("steps", grouped_digits),
        "train_s": ("training", duration),
        "examples_per_s": ("examples per second", grouped_digits),
        "parameters": ("parameters", grouped_digits),
    }
    rows = []
    for key, (name, text) in kinds.items():
        rows.append([name, *(text(run.result[key]) if run.result.get(key) else "" for run in runs)])
    rows.append(["FLOPs of a step", *(run_page.si(model.step_flops) if model else "" for model in models)])
    return [row for row in rows if any(row[1:])]


def _differences(runs: list[Run], facts_of: Callable[[Run], dict[str, str]], kind: str) -> str:
    """A table of the facts that are not the same in all of the runs."""
    facts = [facts_of(run) for run in runs]
    names = []
    for name in dict.fromkeys(name for of_run in facts for name in of_run):
        if len({of_run.get(name) for of_run in facts}) > 1:
            names.append(name)
    if not names:
        return f'<p class="muted">{escaped("The knobs are the same." if kind else "Nothing differs.")}</p>'
    rows = [[name, *(of_run.get(name) or "" for of_run in facts)] for name in names]
    return page.table([kind, *(run.name for run in runs)], rows, "" if kind else "l" * (len(runs) + 1))
