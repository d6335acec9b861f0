"""The page of several runs beside each other."""

from __future__ import annotations

from collections.abc import Callable

from jaxmodels.console import duration, number
from jaxmodels.report import charts, page, run_page
from jaxmodels.report.model import Model
from jaxmodels.report.page import Page, escaped
from jaxmodels.report.read_run import Run, is_number, rates


def several_runs(runs: list[Run], models: list[Model | None]) -> Page:
    """Curves together, and what differs: knobs, results, environments."""
    name_apart(runs)
    names = [run.name for run in runs]
    said = Page(f"{len(runs)} runs: report")
    said.add(f'<header><h1>{len(runs)} runs</h1><p class="muted">{escaped(", ".join(names))}</p></header>')
    said.add(run_page.notes([f"{run.name}: {note}" for run in runs for note in run.notes]))
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    stated = list(dict.fromkeys(who for run in runs for who in run_page.baselines(run)))

    def got(run, name):
        return number(run.metrics[name]) if name in run.metrics else ""

    rows = [
        [name, *(got(run, name) for run in runs), *(_stated(runs, who, name) for who in stated)]
        for name in metrics
    ]
    said.section("Results", page.table(["", *names, *stated], [*rows, *_costs(runs, models)]))
    more = [rates(run, run_page.batch_of(run, model)) for run, model in zip(runs, models, strict=True)]
    figures = charts.curves(runs, more, [model.step_flops if model else None for model in models])
    legend = f'<div class="bar">{"".join(page.dot(i, name) for i, name in enumerate(names))}</div>'
    pale = (
        '<p class="muted">Paler: training.</p>'
        if any(n.startswith("train/") for run in runs for n in run.curves)
        else ""
    )
    said.section(
        "Learning curves", legend, page.choices(run_page.axes(runs, models), True), pale, said.charts(figures)
    )
    said.section(
        "What differs",
        _differences(runs, lambda run: {k: run_page.shown(v) for k, v in run.knobs.items()}, "knob"),
    )
    said.section("Where and how they ran", _differences(runs, lambda run: dict(run_page.about(run)), ""))
    said.add(run_page.footer())
    return said


def name_apart(runs: list[Run]) -> None:
    """Runs whose folders have one name get that of the folder above, too, where it differs, else a number."""
    for alike in (
        lambda run, _: f"{run.path.resolve().parent.name}/{run.path.resolve().name}",
        lambda run, i: f"{run.name} ({i + 1})",
    ):
        names = [run.name for run in runs]
        others = [alike(run, i) for i, run in enumerate(runs)]
        for i, run in enumerate(runs):
            if names.count(names[i]) > 1 and others.count(others[i]) == 1:
                run.name = others[i]


def _stated(runs: list[Run], who: str, name: str) -> str:
    values = [run_page.baselines(run).get(who, {}).get(name) for run in runs]
    return next((number(x) for x in values if x is not None and is_number(x)), "")


def _costs(runs: list[Run], models: list[Model | None]) -> list[list[str]]:
    def whole(x):
        return f"{x:,.0f}"

    kinds = {"steps": whole, "train_s": duration, "examples_per_s": whole, "parameters": whole}
    names = {"train_s": "training", "examples_per_s": "examples per second"}

    def say(run, key):
        return kinds[key](run.result[key]) if run.result.get(key) else ""

    rows = [[names.get(key, key), *(say(run, key) for run in runs)] for key in kinds]
    rows.append(["FLOPs of a step", *(run_page.si(model.step_flops) if model else "" for model in models)])
    stated = len({who for run in runs for who in run_page.baselines(run)})
    return [[*row, *[""] * stated] for row in rows if any(row[1:])]


def _differences(runs: list[Run], of: Callable[[Run], dict[str, str]], what: str) -> str:
    """What is not the same in all of the runs; "" where all is."""
    each = [of(run) for run in runs]
    names = [
        name
        for name in dict.fromkeys(n for facts in each for n in facts)
        if len({f.get(name) for f in each}) > 1
    ]
    if not names:
        return f'<p class="muted">{escaped("The knobs are the same." if what else "Nothing differs.")}</p>'
    rows = [[name, *(facts.get(name) or "" for facts in each)] for name in names]
    return page.table([what, *(run.name for run in runs)], rows, "" if what else "l" * (len(runs) + 1))
