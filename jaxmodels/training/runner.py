"""The loop: an Experiment and Options in, a trained, evaluated, resumable run out. Read from top to bottom.

segments(n)        which steps go into one dispatch: a function of n alone, so a resumed run repeats them
feed               the input of the next dispatch, read and placed by a thread
programs           the step, compiled once; k steps in a scan where one is too short to be worth a dispatch
metrics            fetched while the next dispatch runs
evals, checkpoints, signals: between dispatches
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxmodels import keys, step
from jaxmodels.analysis import nonfinite
from jaxmodels.console import Console
from jaxmodels.experiment import Experiment, as_evaluation
from jaxmodels.launch.exit_statuses import DONE, of_signal
from jaxmodels.options import Options
from jaxmodels.parallel import axes, processes
from jaxmodels.parallel.compile import compiler_options_for_once, max_in_flight
from jaxmodels.parallel.mesh import batch_ways, check_batch, check_pmap, fit_devices, make_mesh
from jaxmodels.runs.check_experiment import check_parts
from jaxmodels.runs.folder import Folder
from jaxmodels.runs.metrics_file import Tracker, json_lines
from jaxmodels.state import abstract_state, as_dtype, batch_shapes, initial
from jaxmodels.training import feed as feeding
from jaxmodels.training.check_batches import Checker
from jaxmodels.training.evaluate import Evaluator, evaluates
from jaxmodels.training.metrics import History, Log, MeanAccumulator
from jaxmodels.training.profile import Profile, window
from jaxmodels.training.programs import Programs, segments
from jaxmodels.training.saving import Saver
from jaxmodels.training.signals import STOP_AT, Signals, signal_name
from jaxmodels.training.stopping import Stopping
from jaxmodels.training.trackers import tracker
from jaxmodels.training.watchdog import Stall

WORTH = 4000  # steps still to do that pay for compiling a second program
INPUT_BOUND = 0.10  # share of the time spent waiting for input that is worth a warning
LISTED, KEPT = 10, 1000  # broken examples that are shown, and those that result.json holds
SETTLED = 5.0  # seconds of training after which that share is looked at


class Result(NamedTuple):
    """What a run came to."""

    state: step.State
    metrics: dict[str, float]  # of the last evaluation, by "name/metric"
    summary: dict[str, Any]  # what result.json says
    history: list[
        dict[str, Any]
    ]  # what was logged, a dict for each line of metrics.jsonl; also of a run without a folder


class Interrupted(Exception):
    """A signal ended the run after it was saved."""

    def __init__(self, number: int, step: int, saved: bool):
        super().__init__(signal_name(number))
        self.number, self.step, self.saved = number, step, saved
        self.exit_status = (
            of_signal(number) if number > 0 else DONE
        )  # a preemption that JAX announced has no signal


def check(experiment: Experiment, options: Options) -> Mesh:
    """The mesh that the options name; raises where the experiment does not fit it."""
    check_parts(experiment)
    mesh = make_mesh(_elastic(experiment, options) if options.elastic else options.mesh)
    if options.compile == "pmap":
        if processes.count() > 1:
            raise ValueError(
                f"--compile pmap: there are {processes.count()} processes, it works in one; use --compile jit"
            )
        check_pmap(mesh)
        if options.offload != "nothing":
            raise ValueError(
                f"--offload {options.offload}: pmap places whole arrays on the device; use --compile jit"
            )
    if options.accumulate < 1:
        raise ValueError(
            f"--accumulate {options.accumulate}: it must be at least 1, the number of micro-batches"
        )
    for name in ("steps_per_dispatch", "checkpoint_every", "keep", "stop_at", "stall_after"):
        if getattr(options, name) < 0:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(options, name)}: it must be 0 or more")
    Stopping(experiment)  # raises where nothing would ever be asked
    for name, least in (
        ("steps", 0),
        ("log_every", 1),
        ("eval_every", 1),
        ("checkpoint_every", 1),
        ("keep", 1),
    ):
        value = getattr(experiment, name)
        if value is not None and value < least:
            raise ValueError(
                f"the experiment's {name} is {value}; it must be at least {least}, or absent where it may be"
            )
    if options.steps_per_dispatch > 1 and feeding.is_bucketed(experiment.train):
        raise ValueError(
            f"--steps-per-dispatch {options.steps_per_dispatch}: it must be 1 for batches of different lengths, or absent"
        )
    keys.words(experiment.seed, "the experiment's seed")
    window(options.profile, experiment.steps)
    check_batch(mesh, experiment.train.batch, options.accumulate, "train")
    for name, evaluation in experiment.evals.items():
        check_batch(mesh, as_evaluation(evaluation).data.batch, 1, name)
    return mesh


def _elastic(experiment: Experiment, options: Options) -> str:
    """The mesh for the devices that are there."""
    batches = [experiment.train.batch // max(1, options.accumulate)]
    batches += [as_evaluation(evaluation).data.batch for evaluation in experiment.evals.values()]
    return fit_devices(options.mesh, jax.device_count(), batches, use_all=processes.count() > 1)


def evaluate(
    experiment: Experiment, state: step.State, options: Options, console: Console
) -> dict[str, float]:
    """All evaluations of the experiment in this state, by "name/metric"."""
    session = _Session(experiment, options, None, console)
    with session.clear_errors():
        metrics = session.evaluate(state)
    session.say_broken()
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
    """Trains, evaluates, checkpoints and logs an experiment, going on from the folder's newest sound checkpoint.

    Without a folder nothing is written. trackers get (step, values). on_step(n) is called after each
    dispatch, by tests.
    """
    options, console = options or Options(), console or Console(quiet=True)
    begun = time.perf_counter()
    session = _Session(experiment, options, folder, console)
    writers: list[Tracker] = []
    if folder is None and options.track:
        raise ValueError(
            f"track is {', '.join(options.track)}, but the run has no folder; give one: folder='runs/mine'"
        )
    if folder is not None and processes.first():
        writers += [
            json_lines(folder.path / "metrics.jsonl", console.warn)
        ]  # the first, which checkpoints wait for
        writers += [tracker(kind, folder.path, name, knobs or {}) for kind in options.track]
    with session.clear_errors():
        state, n = session.start()
    history = History(() if folder is None else folder.logged())
    log = Log([*writers, *trackers] if processes.first() else [], console.warn, history)
    signals = Signals()
    try:
        with session.clear_errors(), signals, session.stall, console.progress(n, experiment.steps):
            state = session.train(state, n, log, signals, on_step)
        log.flush_first()
        return session.finish(state, begun, history.lines)
    except BaseException as error:
        session.note_end(error)
        raise
    finally:
        log.close()
        session.close()


class _Session:
    """One process's part of a run: compiled programs, and the clock."""

    def __init__(self, experiment: Experiment, options: Options, folder: Folder | None, console: Console):
        self.experiment, self.options, self.folder, self.console = experiment, options, folder, console
        self.mesh = check(experiment, options)
        self.abstract, self.shardings = abstract_state(experiment, self.mesh, options.offload)
        self.stall = Stall(options.stall_after)
        self.look = Checker(
            experiment.task, experiment.train, "train", self.abstract.params, self.abstract.extra
        )
        self.programs = Programs(
            experiment, options, self.mesh, self.abstract, self.shardings, console, self.stall, self.look
        )
        self.evaluate = Evaluator(experiment, self.mesh, as_dtype(options.precision), console, self.abstract)
        self.saver = Saver(folder, console)
        self.profile = Profile(window(options.profile, experiment.steps), folder, console)
        self.train_s = 0.0
        self.trained = 0  # steps in this process
        self.k = options.steps_per_dispatch
        self.checkpoint_every = options.checkpoint_every or experiment.checkpoint_every
        self.metrics: dict[str, float] = {}
        self.interval: MeanAccumulator | None = None
        self.best: float | None = None
        self.faults = 0
        self.spikes = 0
        self.feed: feeding.Feed | None = None
        self.stopping = Stopping(experiment)

    # Start

    def start(self) -> tuple[step.State, int]:
        """The state to go on from, on the mesh, and its step."""
        experiment = self.experiment
        self.console.say(self._headline(), "dim")
        self.look.start()
        self.evaluate.check()
        restored = None
        if self.folder is not None:
            restored = self.folder.checkpoints.restore(self.abstract)
            self.folder.settle()
        if restored:
            n, state, note = restored
            self.interval = MeanAccumulator(note["names"])
            self.interval.sums = np.asarray(note["interval"], np.float64)
            self.metrics, self.best, self.saver.newest = note["metrics"], note["best"], n
            self.k = self.k or note["steps_per_dispatch"]  # the bits of what follows depend on both
            self.checkpoint_every = (
                self.options.checkpoint_every or note["checkpoint_every"] or self.checkpoint_every
            )
            if self.options.on_nan == "stop":  # batches that were skipped before do not stop it
                state = state._replace(faults=jnp.zeros_like(state.faults))
            self.faults = int(state.faults)
            self.spikes = int(step.skipped_spikes(state.opt_state) or 0)
            self.stopping.evaluations = note.get("evaluations", [])
            self.console.say(f"going on from step {n:,}", "bold")
            if self.folder is not None and (said := self.folder.go_on_longer(n)):
                self.console.warn(said)
        else:
            with self.programs.timed("initialising the parameters"):
                once = compiler_options_for_once(self.mesh)
                state, n = jax.jit(lambda: initial(experiment), out_shardings=self.shardings, **once)(), 0
        if not self.k:
            left = experiment.steps - n
            self.k = (
                self.programs.measure_k(state, self._events() or (experiment.steps,)) if left >= WORTH else 1
            )
        self.programs.lay_data(self.k)
        if self.folder is not None:
            self.folder.resume_metrics(n)
            self.folder.write_environment(
                options=self.options.__dict__,
                steps_per_dispatch=self.k,
                checkpoint_every=self.checkpoint_every,
                steps=experiment.steps,
                batch=experiment.train.batch,
            )
        return state, n

    def _headline(self) -> str:
        parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(self.abstract.params))
        mesh = ",".join(f"{k}={v}" for k, v in self.mesh.shape.items())
        kind = self.mesh.devices.flat[0].device_kind
        data = self.experiment.train
        described = data.describe()
        stages = self.mesh.shape.get(axes.PIPELINE, 1)
        if stages > 1:
            n = axes.micro_batches(data.batch // self.options.accumulate, stages, batch_ways(self.mesh))
            described += f"\n{stages} stages, {n} micro-batches; each stage waits {axes.bubble(stages, n):.0%} of its time"
        return f"{parameters:,} parameters on {self.mesh.size} x {kind} ({mesh}, {self.options.compile})\n{described}"

    # Train

    def train(
        self, state: step.State, n: int, log: Log, signals: Signals, on_step: Callable | None
    ) -> step.State:
        """Steps n to the end."""
        experiment, events = self.experiment, self._events()
        if n < experiment.steps and self.stopping.now(n):
            return state
        flight: deque[Any] = deque()
        depth = max_in_flight(self.mesh)
        self.feed = feed = feeding.Feed(
            experiment.train,
            self.mesh,
            segments(n, experiment.steps, self.k, events),
            resident=self.programs.resident,
            check=self.look,
        )
        for start, stop in segments(n, min(n + self.k, experiment.steps), self.k, events):
            self.programs.get(stop - start)  # compiled before the clock starts
        processes.barrier("compiled")
        self.stall.progress()
        clock = time.perf_counter()
        done, warned = n, False
        if 0 < self.options.stop_at <= n < experiment.steps:
            raise self._interrupted(STOP_AT, n)

        def busy() -> bool:
            return bool(flight) and not flight[-1][2].is_ready()

        def stopped() -> bool:
            return signals.received != 0 and done > n

        def land() -> None:
            nonlocal clock
            start, stop, packed = flight.popleft()
            self._account(start, np.asarray(packed), state, log)
            self.stall.progress()
            now = time.perf_counter()
            self.train_s += now - clock
            self.trained += stop - start
            clock = now

        while (given := feed.get(busy, stopped)) is not None:
            start, stop, moving = given
            if stop - start not in self.programs.compiled:
                while flight:
                    land()
                self.programs.get(stop - start)
                clock = time.perf_counter()
            if self.profile.begins(start, stop):
                while flight:
                    land()
                with self.stall.paused():
                    self.profile.begin(start, state)
                clock = time.perf_counter()
            compiling = self.programs.compile_s
            state, packed = self.programs.get(stop - start)(state, self.programs.fixed, moving)
            clock += self.programs.compile_s - compiling  # for a batch of another length
            flight.append((start, stop, packed))
            done = stop
            if self.profile.ends(stop):
                while flight:
                    land()
                with self.stall.paused():
                    self.profile.end(stop, state, self.programs.texts)
                clock = time.perf_counter()
            while len(flight) > depth:
                land()
            if on_step is not None:
                on_step(stop)
            signals.poll()
            if 0 < self.options.stop_at <= stop < experiment.steps:
                signals.received = signals.received or STOP_AT
            at_event = any(stop % e == 0 for e in events) or stop == experiment.steps
            if at_event or signals.received:
                while flight:
                    land()
                with self.stall.paused():
                    if at_event and self._evaluates(stop):
                        self._evaluate(state, stop, log)
                    best = at_event and self._is_best(stop)
                    ends = stop < experiment.steps and self._evaluates(stop) and self.stopping.now(stop)
                    stopped_by = (
                        signals.received
                    )  # read once: what comes later is acted on after the next dispatch
                    if stopped_by or best or ends or self._due(stop, self.checkpoint_every):
                        log.flush_first()  # a checkpoint must not outlive log lines that a resumed run will not write again
                        self._save(state, stop, best=best, must=bool(stopped_by) or ends)
                    if stopped_by:
                        raise self._interrupted(stopped_by, stop)
                    if ends:
                        return state
                clock = time.perf_counter()
            if not warned and self.train_s > SETTLED and feed.waited > INPUT_BOUND * self.train_s:
                warned = True
                self.console.warn(feed.bottleneck(self.train_s, self.trained))
        while flight:
            land()
        if signals.received and done < experiment.steps:  # the data source had not answered yet
            with self.stall.paused():
                log.flush_first()
                self._save(state, done, best=False, must=True)
                raise self._interrupted(signals.received, done)
        if n == experiment.steps and not self.metrics:
            with self.stall.paused():
                self._evaluate(state, n, log)
        return state

    def _events(self) -> tuple[int, ...]:
        return tuple(e for e in (self.experiment.eval_every, self.checkpoint_every) if e)

    def _due(self, n: int, every: int | None) -> bool:
        return n == self.experiment.steps or bool(every and n % every == 0)

    def _evaluates(self, n: int) -> bool:
        return evaluates(n, self.experiment.eval_every, self.experiment.steps)

    def _account(self, start: int, packed: np.ndarray, state: step.State, log: Log) -> None:
        """Adds the metrics of a dispatch's steps, and logs those that end an interval."""
        if self.interval is None or self.interval.names != self.programs.names:
            self.interval = MeanAccumulator(self.programs.names)
        every, steps = self.experiment.log_every, self.experiment.steps
        n, stop, faults = (
            start,
            start + len(packed),
            packed[:, self.programs.names.index("faults"), 0].tolist(),
        )
        while n < stop:
            end = min(stop, (n // every + 1) * every)  # of the interval, or of what there is of it
            for i in range(n, end):
                if faults[i - start] > self.faults:
                    self.faults = int(faults[i - start])
                    if self.options.on_nan == "stop":
                        raise nonfinite.NotFinite(self._explain(state))
                    self.console.warn(
                        f"step {i:,}: loss or gradient not finite, batch skipped ({self.faults} so far)"
                    )
            self.interval.add(packed[n - start : end - start])
            if end % every == 0 or end == steps:
                values = {
                    f"train/{k}": v
                    for k, v in self.interval.finish(self.experiment.task).items()
                    if k != "faults"
                }
                if self.faults:
                    values["train/skipped"] = self.faults
                self._tell_spikes(end, int(values.get("train/skipped_spikes", 0)))
                waited = round(self.feed.waited, 3) if self.feed else 0.0
                log(end, {**values, "seconds": round(self.train_s, 3), "seconds_waited": waited})
                self._show(end, values["train/loss"], due=True)
                self.interval = MeanAccumulator(self.programs.names)
            n = end
        loss = self.programs.names.index("loss")
        total, weight = packed[:, loss].astype(np.float64).sum(0)
        self._show(start + len(packed), total / weight if weight else math.nan, due=False)

    def _tell_spikes(self, n: int, spikes: int) -> None:
        if spikes > self.spikes:
            new = "batch" if spikes == self.spikes + 1 else f"{spikes - self.spikes} batches"
            said = f"gradient norm far above the usual, {new} skipped ({spikes} so far)"
            self.console.warn(f"up to step {n:,}: {said}")
        self.spikes = spikes

    def _show(self, n: int, loss: float, *, due: bool) -> None:
        each = self.train_s / self.trained if self.trained else math.nan
        left = each * (self.experiment.steps - n)
        self.console.update(
            n, {"loss": loss}, self.experiment.train.batch / each if each else math.inf, left, due=due
        )

    def _explain(self, state: step.State) -> str:
        """The state is frozen as it was before the step that failed: that batch again, slowly, in process 0."""
        state = processes.whole(state, self.mesh)
        with self.stall.paused():
            return processes.on_first_process(lambda: self._explained(state))

    def _explained(self, state: step.State) -> str:
        state = jax.device_get(jax.tree.map(lambda x: x, state)._replace(key=None))._replace(key=state.key)
        n, data = int(state.step), self.experiment.train
        examples = data.indices(n, 0, data.batch)
        with self.console.busy("looking for the first module that is not finite"):
            return nonfinite.explain(
                self.experiment.task, state, feeding.read(data, n), examples, as_dtype(self.options.precision)
            )

    # Evaluate, save, end

    def _evaluate(self, state: step.State, n: int, log: Log) -> None:
        folder = self.folder
        show = None if folder is None else lambda name, pixels: folder.write_picture(f"{name}-{n}", pixels)
        self.metrics = self.evaluate(state, show)
        self.stopping.evaluated(n, self.metrics)
        if self.metrics:
            log(n, self.metrics)
        if self.metrics and n < self.experiment.steps:
            shown = "  ".join(f"{k} {v:.4g}" for k, v in self.metrics.items())
            self.console.say(f"step {n:,}  {shown}")

    def _is_best(self, n: int) -> bool:
        """Whether the evaluation just made is the best so far."""
        if self.experiment.best is None or not self._evaluates(n):
            return False
        name, better = self.experiment.best
        if name not in self.metrics:
            raise ValueError(
                f"best: there is no metric {name!r}; the evaluations give {', '.join(self.metrics) or 'none'}"
            )
        now = self.metrics[name]
        if math.isnan(now) or (self.best is not None and better(now, self.best) == self.best):
            return False
        self.best = now
        return True

    def _save(self, state: step.State, n: int, *, best: bool, must: bool) -> None:
        assert self.interval is not None
        note = {
            "step": n,
            "metrics": self.metrics,
            "best": self.best,
            "names": self.interval.names,
            "interval": self.interval.sums.tolist(),
            "evaluations": list(self.stopping.evaluations),  # a copy, which is written behind
            "steps_per_dispatch": self.k,
            "checkpoint_every": self.checkpoint_every,
        }
        self.saver.save(n, state, note, best=best, must=must or n == self.experiment.steps)

    def _interrupted(self, number: int, n: int) -> Interrupted:
        if self.folder is not None:
            self.console.say(f"{signal_name(number)}: saving step {n:,} …", "bold")
            self.saver.wait()
        return Interrupted(number, n, self.folder is not None)

    def finish(self, state: step.State, begun: float, history: list[dict[str, Any]]) -> Result:
        """Waits for the last checkpoint and says what the run came to. begun: when, by time.perf_counter."""
        experiment = self.experiment
        self.saver.wait()
        rate = self.trained * experiment.train.batch / self.train_s if self.train_s else None
        summary: dict[str, Any] = {
            "exit": "complete",
            "metrics": self.metrics,
            "steps": self.stopping.at if self.stopping.why else experiment.steps,
            "examples_per_s": rate,
            "steps_per_dispatch": self.k,
            "train_s": self.train_s,
            "compile_s": self.programs.compile_s,
            "input_idle_s": round(self.feed.waited, 3) if self.feed else 0.0,
            "skipped": self.faults,
            "peak_memory_bytes": nonfinite.peak_memory(),
            "parameters": sum(math.prod(x.shape) for x in jax.tree.leaves(self.abstract.params)),
        }
        if broken := self.say_broken():
            summary["broken"] = broken
        with self.console.busy("measuring the baselines"):
            summary["baselines"] = processes.on_first_process(
                lambda: {k: dict(v) for k, v in experiment.baselines().items()}
            )
        if self.stopping.why:
            summary["stopped"] = {"step": self.stopping.at, "why": self.stopping.why}
            self.console.say(
                f"complete: stopped early at step {self.stopping.at:,}, as {self.stopping.why}", "bold"
            )
        if self.folder is not None and self.folder.longer:
            summary["longer"] = self.folder.longer
        summary["wall_s"] = time.perf_counter() - begun
        if self._ends_anew():
            self.folder.write_result(summary)  # type: ignore[union-attr]
        return Result(state, self.metrics, summary, history)

    def say_broken(self) -> dict[str, dict[str, Any]]:
        """By data set, the examples that this process could not load and passed over: how many, and the first of them."""
        evals = {name: as_evaluation(evaluation).data for name, evaluation in self.experiment.evals.items()}
        found = {
            name: list(data.broken()) for name, data in {"train": self.experiment.train, **evals}.items()
        }
        for name, examples in found.items():
            if examples:
                shown = "".join(f"\n  {example}" for example in examples[:LISTED])
                more = (
                    f"\n  and {len(examples) - LISTED:,} more, in result.json"
                    if len(examples) > LISTED
                    else ""
                )
                self.console.warn(
                    f"{name}: {len(examples):,} examples could not be loaded and count nowhere:{shown}{more}"
                )
        return {name: {"count": len(each), "examples": each[:KEPT]} for name, each in found.items() if each}

    def note_end(self, error: BaseException) -> None:
        """Leaves in result.json why the run ended before its time."""
        if self._ends_anew():
            reason = str(error) if isinstance(error, Interrupted) else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # a full disk may be the reason
                self.folder.write_result({"exit": reason, "metrics": self.metrics})  # type: ignore[union-attr]

    def _ends_anew(self) -> bool:
        """Whether result.json is this process's to write: a run that had ended before keeps what it said."""
        if not processes.first():
            return False
        return self.folder is not None and (
            self.trained > 0 or self.folder.result().get("exit") != "complete"
        )

    def close(self) -> None:
        """Ends the feed's thread, and a trace that an error has cut short."""
        self.profile.close()
        if self.feed is not None:
            self.feed.close()

    @contextlib.contextmanager
    def clear_errors(self) -> Iterator[None]:
        """Says what fills the device where its memory was not enough; programs run behind, so that may show anywhere."""
        try:
            yield
        except Exception as error:
            if isinstance(error, OSError) or not nonfinite.is_out_of_memory(error):
                raise
            batch = batch_shapes(self.experiment.train)
            raise MemoryError(
                nonfinite.out_of_memory(error, self.abstract, batch, self.options.accumulate)
            ) from error
