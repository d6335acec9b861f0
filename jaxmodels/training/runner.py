"""An Experiment and Options in; a trained, evaluated, resumable run out. `run` is the checklist.

check       every reason to refuse it            schedule   what happens at which step
programs    the step, compiled                   feed       the next dispatch's input, read by a thread
loop        dispatch after dispatch              metrics    fetched while the next dispatch runs
progress    the host's half of the state         evaluate, saving, signals: between dispatches
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax

from jaxmodels.console import Console
from jaxmodels.experiment import Experiment
from jaxmodels.options import Options
from jaxmodels.parallel import processes
from jaxmodels.parallel.compile import compiler_options_for_once
from jaxmodels.runs.folder import Folder
from jaxmodels.runs.metrics_file import Tracker
from jaxmodels.state import abstract_state, as_dtype, initial
from jaxmodels.step import State
from jaxmodels.training import failures
from jaxmodels.training.check import check
from jaxmodels.training.check_batches import Checker
from jaxmodels.training.clock import Clock
from jaxmodels.training.dispatch_size import measure_k
from jaxmodels.training.evaluate import Evaluator
from jaxmodels.training.failures import Interrupted
from jaxmodels.training.feed import Feed
from jaxmodels.training.log import History, Log
from jaxmodels.training.loop import train
from jaxmodels.training.profile import Profile, window
from jaxmodels.training.programs import Programs
from jaxmodels.training.progress import Progress
from jaxmodels.training.saving import Saver
from jaxmodels.training.schedule import Due, Schedule, segments
from jaxmodels.training.signals import STOP_AT, Signals, signal_name
from jaxmodels.training.status import Status, headline
from jaxmodels.training.stopping import reason_to_stop
from jaxmodels.training.summary import summarize, warn_of_broken, write_result
from jaxmodels.training.trackers import open_writers
from jaxmodels.training.watchdog import Watchdog

WORTH = 4000  # steps still to do that pay for compiling a second program


class Result(NamedTuple):
    """What a run came to."""

    state: State
    metrics: dict[str, float]  # of the last evaluation, by "name/metric"
    summary: dict[str, Any]  # what result.json holds
    history: list[dict[str, Any]]  # a dict for each line of metrics.jsonl; also of a run without a folder


def evaluate(experiment: Experiment, state: State, options: Options, console: Console) -> dict[str, float]:
    """All evaluations of the experiment in this state, by "name/metric"."""
    run = Training(experiment, options, None, console)
    with run.explained_memory():
        metrics = run.evaluator(state)
    warn_of_broken(experiment, console)
    return metrics


def run(
    experiment: Experiment,
    options: Options | None = None,
    *,
    folder: Folder | None = None,
    console: Console | None = None,
    name: str = "run",
    knobs: Mapping[str, Any] | None = None,
    trackers: tuple[Tracker, ...] = (),
    on_step: Callable[[int], None] | None = None,
) -> Result:
    """Trains, evaluates, checkpoints and logs an experiment, going on from the folder's newest sound
    checkpoint.

    Without a folder nothing is written. trackers get (step, values). on_step(step) is called after each
    dispatch, by tests.
    """
    options, console = options or Options(), console or Console(quiet=True)
    begun = time.perf_counter()
    run = Training(experiment, options, folder, console)
    writers = open_writers(options, folder, console, name, knobs or {})
    with run.explained_memory():
        state, first = run.start()
    history = History(() if folder is None else folder.logged())
    run.log = Log([*writers, *trackers] if processes.first() else [], console.warn, history)
    run.on_step = on_step or run.on_step
    try:
        bar = console.progress(first, experiment.steps)
        with run.explained_memory(), run.signals, run.clock.watchdog, bar:
            state = run.train(state, first)
        run.log.flush_first()
        run.saver.wait()
        summary = summarize(run, begun)
        write_result(run, summary)
        return Result(state, run.progress.metrics, summary, history.lines)
    except BaseException as error:
        with contextlib.suppress(OSError):  # a full disk may be the reason
            write_result(run, {"exit": failures.reason(error), "metrics": run.progress.metrics})
        raise
    finally:
        run.log.close()
        run.profile.close()


class Training:
    """One process's part of a run, as the loop sees it."""

    def __init__(self, experiment: Experiment, options: Options, folder: Folder | None, console: Console):
        self.experiment, self.options, self.folder, self.console = experiment, options, folder, console
        self.data = experiment.train
        self.mesh = check(experiment, options)
        self.abstract, self.shardings = abstract_state(experiment, self.mesh, options.offload)
        params, extra = self.abstract.params, self.abstract.extra
        self.check = Checker(experiment.task, self.data, "train", params, extra)
        self.explained_memory = partial(failures.explained_memory, experiment, options, self.abstract)
        self.clock = Clock(Watchdog(options.stall_after))
        layout = self.mesh, self.abstract, self.shardings
        self.programs = Programs(experiment, options, *layout, console, self.clock, self.check)
        self.evaluator = Evaluator(experiment, self.mesh, as_dtype(options.precision), console, self.abstract)
        self.saver = Saver(folder, console)
        self.profile = Profile(window(options.profile, experiment.steps), folder, console)
        self.signals = Signals(options.stop_at, experiment.steps)
        self.status = Status(console, self.clock, experiment)
        self.log = Log([], console.warn)
        self.on_step: Callable[[int], object] = lambda step: None
        self.progress = Progress()
        self.feed: Feed | None = None
        self.stopped: tuple[int, str] | None = None  # (step, reason) of an early end

    # Start

    def start(self) -> tuple[State, int]:
        """The state to go on from, on the mesh, and its step."""
        self.console.say(headline(self.experiment, self.options, self.mesh, self.abstract), "dim")
        self.check.start()
        self.evaluator.check()
        restored = self.saver.restore(self.abstract, self.options.on_nan)
        state, first, self.progress = restored or (self._initial(), 0, self.progress)
        progress, options = self.progress, self.options
        progress.steps_per_dispatch = options.steps_per_dispatch or progress.steps_per_dispatch
        every = options.checkpoint_every or progress.checkpoint_every or self.experiment.checkpoint_every
        progress.checkpoint_every = every
        steps, log_every = self.experiment.steps, self.experiment.log_every
        self.schedule = Schedule(steps, log_every, self.experiment.eval_every, every, end=steps)
        if not progress.steps_per_dispatch:
            worth_it = steps - first >= WORTH
            events = self.schedule.events or (steps,)
            progress.steps_per_dispatch = measure_k(self.programs, state, events) if worth_it else 1
        self.k = progress.steps_per_dispatch
        self.programs.lay_data(self.k)
        self.resident = self.programs.resident
        if self.folder is not None:
            self.folder.resume_metrics(first)
            sizes = {"steps": steps, "batch": self.data.batch, "steps_per_dispatch": self.k}
            self.folder.write_environment(options=vars(options), checkpoint_every=every, **sizes)
        return state, first

    def _initial(self) -> State:
        with self.programs.timed("initialising the parameters"):
            once = compiler_options_for_once(self.mesh)
            return jax.jit(lambda: initial(self.experiment), out_shardings=self.shardings, **once)()

    # Train: what the loop asks for

    def train(self, state: State, first: int) -> State:
        """The state at the end, evaluated and saved."""
        if first < self.experiment.steps and self._stops(first):
            return state
        soon = min(first + self.k, self.experiment.steps)
        for start, stop in segments(first, soon, self.k, self.schedule.events):
            self.programs.get(stop - start)  # compiled before the clock starts
        processes.barrier("compiled")
        if self.signals.reached(first):
            raise self._interrupted(STOP_AT, first)
        state = train(self, state, first)
        if first == self.experiment.steps and not self.progress.metrics:
            with self.clock.paused():
                self._evaluate(state, first)
        return state

    def dispatch(self, state: State, start: int, stop: int, inputs: Any, settle: Callable[[], None]) -> Any:
        """Begins the steps from start to stop, and the profile around them where that is asked for."""
        program = self.programs.get(stop - start, settle)
        self.profile.before(start, stop, state, self.clock)
        state, metrics = program(state, self.programs.dataset, inputs)
        self.profile.after(stop, state, self.clock, self.programs.texts)
        return state, metrics

    def record(self, state: State, start: int, metrics: Any) -> None:
        """Logs and shows a dispatch's metrics; a loss that is not finite ends the run, or is counted."""
        experiment, progress, names = self.experiment, self.progress, self.programs.names
        skip = self.status.warn_of_skipped if self.options.on_nan == "skip" else None
        stop = start + len(metrics)
        for end, values in progress.record(names, start, metrics, self.schedule, experiment.task, skip):
            self.status.warn_of_spikes(end, progress, values)
            waited = round(self.feed.waited, 3) if self.feed else 0.0
            self.log(end, {**values, "seconds": round(self.clock.seconds, 3), "seconds_waited": waited})
            self.status.show(end, values["train/loss"], due=True)
        if progress.diverged is not None:
            with self.clock.paused():
                raise failures.not_finite(experiment, self.options, state, self.mesh, self.console)
        total, weight = metrics[:, names.index("loss")].astype(float).sum(0)
        self.status.show(stop, total / weight if weight else math.nan, due=False)
        self.clock.completed(len(metrics))
        self.status.warn_of_waiting(self.feed)

    def between(self, state: State, step: int, due: Due) -> bool:
        """Evaluates, saves and stops as is due and as signals ask.

        True where the run ends before its last step.
        """
        experiment, progress = self.experiment, self.progress
        if due.evaluation:
            self._evaluate(state, step)
        best = due.evaluation and progress.improved(experiment.best)
        ends = due.evaluation and step < experiment.steps and self._stops(step)
        signal = self.signals.received  # read once: what comes later is acted on after the next dispatch
        if signal or best or ends or due.checkpoint:
            # A checkpoint must not outlive log lines that a resumed run will not write again.
            self.log.flush_first()
            must = bool(signal) or ends or step == experiment.steps
            self.saver.save(step, state, progress.note(step), best=best, must=must)
        if signal:
            raise self._interrupted(signal, step)
        return ends

    def _evaluate(self, state: State, step: int) -> None:
        folder, progress = self.folder, self.progress
        show = None if folder is None else lambda name, pixels: folder.write_picture(f"{name}-{step}", pixels)
        metrics = progress.metrics = self.evaluator(state, show)
        if self.experiment.stop_when is not None:
            progress.evaluations.append({"step": step, **metrics})
        if metrics:
            self.log(step, metrics)
            self.status.show_evaluation(step, metrics)

    def _stops(self, step: int) -> bool:
        reason = reason_to_stop(self.experiment.stop_when, self.progress.evaluations)
        self.stopped = (step, reason) if reason else None
        return bool(reason)

    def _interrupted(self, number: int, step: int) -> Interrupted:
        if self.folder is not None:
            self.console.say(f"{signal_name(number)}: saving step {step:,} …", "bold")
            self.saver.wait()
        return Interrupted(number, step, self.folder is not None)
