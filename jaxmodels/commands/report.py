"""jaxmodels report: runs, or a sweep, as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jaxmodels.console import Console
from jaxmodels.report import page
from jaxmodels.report.classifier import ClassifierReport
from jaxmodels.report.compare_page import compare_page
from jaxmodels.report.model import model_of
from jaxmodels.report.read_run import Run, read_run
from jaxmodels.report.read_sweep import is_sweep, read_sweep
from jaxmodels.report.run_page import run_page
from jaxmodels.report.sweep_page import sweep_page
from jaxmodels.runs.files import write_text
from jaxmodels.runs.origin import check_code, is_weights


def report(
    runs: str | Path | Sequence[str | Path],
    *,
    out: str | Path = "",
    evaluate: bool = False,
    model: Literal["on", "off"] = "on",
    console: Console | None = None,
) -> Path:
    """Writes the page of a run, of several beside each other, or of a sweep, and gives its path.

    out: by default report.html in the folder of the one run, or here. See jaxmodels.options.Reporting for the
        rest.
    """
    console = console or Console(quiet=True)
    folders = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    if not folders:
        raise ValueError(
            "no run was given; wanted the folders of one or more: give what `jaxmodels train` named last"
        )
    if model == "off" and evaluate:
        raise ValueError("--evaluate builds the run's model, and --model off asks not to; give one of them")
    page.library()  # before anything takes time
    swept = [folder for folder in folders if is_sweep(folder)]
    if swept and (len(folders) > 1 or evaluate):
        raise ValueError(
            f"{swept[0]} is a sweep: it has a page of its own; give its folder alone, without --evaluate"
        )
    found = [] if swept else [read_run(folder) for folder in folders]
    for folder in folders:
        if is_weights(folder):
            raise ValueError(
                f"{folder}: got a model from elsewhere; expected a run's folder. Give what `jaxmodels train` named"
            )
        if model == "on" and not swept:
            check_code(folder, console.warn)
    path = Path(out) if out else folders[0] / "report.html" if len(folders) == 1 else Path("report.html")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(
            f"{path} cannot be written: {'it is a folder' if path.is_dir() else 'its folder does not exist'}"
        )
    made = sweep_page(read_sweep(swept[0])) if swept else page_of(found, evaluate, model == "on", console)
    write_text(path, made.html())
    for run in found:
        for note in run.notes:
            console.warn(f"{run.name}: {note}")
    return path


def page_of(runs: list[Run], evaluate: bool, build: bool, console: Console) -> page.Page:
    """The page of a run, or of several."""
    with console.busy("reading the models"):
        models = [model_of(run) if build else None for run in runs]
    if len(runs) > 1:
        if evaluate:
            raise ValueError(f"--evaluate is for the page of one run; came {len(runs)}: make a page for each")
        return compare_page(runs, models)
    reports, step = _examine(runs[0], console) if evaluate else ({}, None)
    return run_page(runs[0], models[0], reports, step)


def _examine(run: Run, console: Console) -> tuple[dict[str, ClassifierReport], int | None]:
    """(reports by evaluation, step) of the best checkpoint, else the newest; of neither a note in the run."""
    from jaxmodels.report.predictions import classifier_reports
    from jaxmodels.runs.open_run import open_run

    try:
        experiment, state, step = open_run(run.path, parts="model", warn=console.warn, evaluates=True)
        precision = run.options.get("precision", "float32")
        return classifier_reports(experiment, state, precision, console), step
    except Exception as error:  # the experiment is the user's code, and may need what is not here
        run.notes.append(f"The run could not be evaluated: {error}")
        return {}, None
