"""What a run came to, as result.json holds it."""

from __future__ import annotations

import math
import time
from typing import Any, Protocol

import jax

from jaxmodels.analysis import memory
from jaxmodels.console import Console
from jaxmodels.experiment import Experiment, as_evaluation
from jaxmodels.parallel import processes
from jaxmodels.runs.folder import Folder
from jaxmodels.training.clock import Clock
from jaxmodels.training.feed import Feed
from jaxmodels.training.programs import Programs
from jaxmodels.training.progress import Progress

LISTED, KEPT = 10, 1000  # broken examples that are shown, and those that result.json holds


class Run(Protocol):
    """What is read of a run that has ended; see runner.Training."""

    experiment: Experiment
    console: Console
    folder: Folder | None
    clock: Clock
    progress: Progress
    programs: Programs
    abstract: Any  # shapes and types of the state
    k: int
    feed: Feed | None
    stopped: tuple[int, str] | None


def summarize(run: Run, begun: float) -> dict[str, Any]:
    """The summary of a run that is complete. begun: when it began, by time.perf_counter."""
    experiment, clock, progress = run.experiment, run.clock, run.progress
    summary: dict[str, Any] = {
        "exit": "complete",
        "metrics": progress.metrics,
        "steps": run.stopped[0] if run.stopped else experiment.steps,
        "examples_per_s": clock.steps * experiment.train.batch / clock.seconds if clock.seconds else None,
        "steps_per_dispatch": run.k,
        "train_s": clock.seconds,
        "compile_s": run.programs.compile_s,
        "input_idle_s": round(run.feed.waited, 3) if run.feed else 0.0,
        "skipped": progress.skipped,
        "peak_memory_bytes": memory.peak_memory(),
        "parameters": sum(math.prod(x.shape) for x in jax.tree.leaves(run.abstract.params)),
    }
    if broken := warn_of_broken(experiment, run.console):
        summary["broken"] = broken
    with run.console.busy("measuring the baselines"):
        summary["baselines"] = processes.on_first_process(lambda: _baselines(run))
    if run.stopped:
        step, reason = run.stopped
        summary["stopped"] = {"step": step, "why": reason}
        run.console.say(f"complete: stopped early at step {step:,}, as {reason}", "bold")
    if run.folder is not None and run.folder.longer:
        summary["longer"] = run.folder.longer
    summary["wall_s"] = time.perf_counter() - begun
    return summary


def _baselines(run: Run) -> dict[str, dict[str, float]]:
    """The baselines; none, with a warning, where they fail: a trained model is not lost for them."""
    try:
        return {name: dict(metrics) for name, metrics in run.experiment.baselines().items()}
    except Exception as error:
        run.console.warn(
            f"the baselines failed ({type(error).__name__}: {error}); the result stands without them"
        )
        return {}


def write_result(run: Run, summary: dict[str, Any]) -> None:
    """Writes result.json. A run that had ended before, and in which nothing was trained now, keeps the old
    one.
    """
    if run.folder is None or not processes.first():
        return
    if run.clock.steps > 0 or run.folder.result().get("exit") != "complete":
        run.folder.write_result(summary)


def warn_of_broken(experiment: Experiment, console: Console) -> dict[str, dict[str, Any]]:
    """By data set, the examples that this process could not load and passed over: how many, and the first of
    them.
    """
    datasets = {name: as_evaluation(evaluation).data for name, evaluation in experiment.evals.items()}
    summary = {}
    for name, data in {"train": experiment.train, **datasets}.items():
        if examples := list(data.broken()):
            lines = [f"\n  {example}" for example in examples[:LISTED]]
            if len(examples) > LISTED:
                lines.append(f"\n  and {len(examples) - LISTED:,} more, in result.json")
            count = f"{len(examples):,} examples could not be loaded and count nowhere"
            console.warn(f"{name}: {count}:{''.join(lines)}")
            summary[name] = {"count": len(examples), "examples": examples[:KEPT]}
    return summary
