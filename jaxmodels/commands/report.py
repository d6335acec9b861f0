"""jaxmodels report: a run, several runs or a sweep as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxmodels.console import Console

if TYPE_CHECKING:
    from jaxmodels.report.classifier import ClassifierReport
    from jaxmodels.report.page import Page
    from jaxmodels.report.read_run import Run
    from jaxmodels.report.transcripts import Transcripts


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What the page shows."""

    out: str = ""
    """The HTML file, also -o; by default report.html in the one run's folder, or in the working folder."""
    evaluate: bool = False
    """Also show predictions of every example, by the best or newest checkpoint.
    Confusions, calibration, the worst and the best."""
    model: Literal["on", "off"] = "on"
    """Whether the run's experiment.py is executed, which the model's table and FLOPs need."""


def report(
    runs: str | Path | Sequence[str | Path],
    *,
    out: str | Path = ReportOptions.out,
    evaluate: bool = ReportOptions.evaluate,
    model: Literal["on", "off"] = ReportOptions.model,
    console: Console | None = None,
) -> Path:
    """Writes the page of a run, of several beside each other, or of a sweep, and gives its path.

    out: the HTML file; by default report.html in the folder of the one run, or in the working folder.
    evaluate: also show the checkpoint's predictions of every example.
    model: "off" executes no experiment, and leaves out the model's table and FLOPs.
    """
    from jaxmodels.report import page
    from jaxmodels.report.read_run import read_run
    from jaxmodels.report.read_sweep import is_sweep, read_sweep
    from jaxmodels.report.sweep_page import sweep_page
    from jaxmodels.runs.files import write_text
    from jaxmodels.runs.origin import check_code, is_weights

    console = console or Console(quiet=True)
    folders = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    if not folders:
        raise ValueError(
            "report: got no run; expected the folders of one or more. Give the folder that `jaxmodels "
            "train` named last"
        )
    if model == "off" and evaluate:
        raise ValueError(
            "report: got --evaluate, which builds the run's model, and --model off; expected one of them. "
            "Leave one out"
        )
    page.library()  # fails where it is not installed, before anything takes time
    sweeps = [folder for folder in folders if is_sweep(folder)]
    if sweeps and (len(folders) > 1 or evaluate):
        raise ValueError(
            f"{sweeps[0]}: got a sweep with other folders or --evaluate; expected it alone, as a sweep has a "
            "page of its own. Give its folder alone, without --evaluate"
        )
    opened = [] if sweeps else [read_run(folder) for folder in folders]
    for folder in folders:
        if is_weights(folder):
            raise ValueError(
                f"{folder}: got a folder of weights; expected a run's folder. Give what `jaxmodels train` "
                "named"
            )
        if model == "on" and not sweeps:
            check_code(folder, console.warn)
    path = Path(out) if out else folders[0] / "report.html" if len(folders) == 1 else Path("report.html")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(
            f"{path}: got {'a folder' if path.is_dir() else 'a file in a folder that does not exist'}; "
            "expected a file that can be written. Give another --out"
        )
    written = (
        sweep_page(read_sweep(sweeps[0])) if sweeps else page_of(opened, evaluate, model == "on", console)
    )
    write_text(path, written.html())
    for run in opened:
        for note in run.notes:
            console.warn(f"{run.name}: {note}")
    return path


def page_of(runs: list[Run], evaluate: bool, build: bool, console: Console) -> Page:
    """The page of a run, or of several."""
    from jaxmodels.report.compare_page import compare_page
    from jaxmodels.report.model import model_of
    from jaxmodels.report.run_page import run_page

    with console.busy("reading the models"):
        models = [model_of(run) if build else None for run in runs]
    if len(runs) > 1:
        if evaluate:
            raise ValueError(
                f"report: got --evaluate for {len(runs)} runs; expected one run. Make a page for each"
            )
        return compare_page(runs, models)
    reports, step = _classifier_reports(runs[0], console) if evaluate else ({}, None)
    return run_page(runs[0], models[0], reports, step)


def _classifier_reports(
    run: Run, console: Console
) -> tuple[dict[str, ClassifierReport | Transcripts], int | None]:
    """(reports by evaluation, step) of the best or newest checkpoint; where that fails, a note instead."""
    from jaxmodels.report.predictions import classifier_reports
    from jaxmodels.runs.open_run import open_run

    try:
        experiment, state, step = open_run(run.path, parts="model", warn=console.warn, evaluates=True)
        precision = run.options.get("precision", "float32")
        return classifier_reports(experiment, state, precision, console), step
    except Exception as error:  # the experiment is the user's code, and may need what is not here
        run.notes.append(f"The run could not be evaluated: {error}")
        return {}, None
