"""Members trained in lockstep, several in a program: one loop, one checkpoint of all states, a log for each.

SWEEP/members/NAME/metrics.jsonl, result.json     of each member, as in a run's folder
SWEEP/together/N/checkpoints, members.json        of the members that share a loop
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import step
from jaxmodels.console import Console
from jaxmodels.experiment import Experiment, as_evaluation
from jaxmodels.launch.exit_statuses import of_signal
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.pipeline import Pipeline
from jaxmodels.runs import experiment_file
from jaxmodels.runs.checkpoint import Checkpoints
from jaxmodels.runs.files import write_text
from jaxmodels.runs.learned import write_learned
from jaxmodels.runs.metrics_file import finite, json_lines, truncate
from jaxmodels.sweeps.member_files import Member, ProgramShape, claim, run_of
from jaxmodels.sweeps.orders import Orders, distinct
from jaxmodels.sweeps.programs import GroupPrograms
from jaxmodels.training import feed as feeding
from jaxmodels.training.batches import read_batch, real_rows
from jaxmodels.training.check_batches import Checker
from jaxmodels.training.clock import Clock
from jaxmodels.training.loop import train
from jaxmodels.training.metrics import MeanAccumulator
from jaxmodels.training.progress import Progress
from jaxmodels.training.schedule import Due, Schedule
from jaxmodels.training.scoring import Collected, examples, score
from jaxmodels.training.signals import Signals


class Stopped(Exception):
    """A signal ended the loop after it was saved."""

    def __init__(self, number: int, step: int):
        super().__init__(number)
        self.exit_status, self.step = of_signal(number), step


class Lockstep:
    """A loop of members that share programs. folder: of this loop; logs: of all members' logs."""

    def __init__(
        self,
        programs: GroupPrograms,
        members: Sequence[Member],
        shape: ProgramShape,
        folder: Path,
        logs: Path,
        console: Console,
    ):
        self.programs, self.shape, self.console, self.folder = programs, shape, console, folder
        self.members = list(members)
        self.parts = [slice(i, i + shape.size) for i in range(0, len(members), shape.size)]
        self.experiments = [programs.file.build(m.config) for m in members]
        self.first: Experiment = self.experiments[0]
        self.values = [programs.values([m.config for m in self.members[part]]) for part in self.parts]
        self.checkpoints = Checkpoints(folder / "checkpoints", keep=1, warn=console.warn, run=run_of(folder))
        self.logs = [logs / m.name for m in members]
        self.progress = [Progress() for _ in members]
        self.history: list[list[dict[str, Any]]] = [[] for _ in members]  # of knobs changed during training
        orders, which = distinct([e.train for e in self.experiments])
        self.which = [np.asarray(which[part], np.int32) for part in self.parts]
        self.shardings = [programs.batch_sharding(which, len(orders)) for which in self.which]
        self.tests = {
            name: distinct([as_evaluation(e.evals[name]).data for e in self.experiments])
            for name in self.first.evals
        }
        state = programs.one

        def checker(data: Pipeline, name: str) -> Checker:
            return Checker(self.first.task, data, name, state.params, state.extra)

        self.checkers = {name: [checker(data, name) for data in of] for name, (of, _) in self.tests.items()}
        self.checkers_of_orders = [checker(data, "train") for data in orders]
        # What the loop asks for; see jaxmodels.training.loop.Run.
        self.data: Any = Orders(orders, self.checkers_of_orders)
        self.mesh = make_mesh("data=1", jax.devices()[:1])
        self.resident, self.check = False, None
        self.feed: feeding.Feed | None = None
        self.on_step: Callable[[int], object] = lambda step: None
        self.k = shape.k
        self.schedule = self._schedule(self.first.steps)
        self.clock = Clock()
        self.signals = Signals()

    def _schedule(self, end: int) -> Schedule:
        first = self.first
        return Schedule(first.steps, first.log_every, first.eval_every, first.checkpoint_every, end)

    @property
    def reached(self) -> int:
        """The step of the newest checkpoint; 0 before the first."""
        return max(self.checkpoints.steps(), default=0)

    @property
    def metrics(self) -> list[dict[str, float]]:
        """Each member's last evaluation."""
        return [progress.metrics for progress in self.progress]

    @property
    def diverged(self) -> list[int | None]:
        """The step at which each member's loss or gradient was not finite."""
        return [progress.diverged for progress in self.progress]

    def claim(self) -> None:
        """Writes the loop's members to its folder, and from now on what they learn from their data."""
        claim(self.folder, self.members, self.shape)
        for member, experiment, log in zip(self.members, self.experiments, self.logs, strict=True):
            experiment_file.name_classes(experiment, self.console.warn)
            self.programs.file.memory(member.config).keep(partial(write_learned, log))

    def start(self) -> tuple[list[step.State], int]:
        """The members' states by program, from the newest checkpoint or new, and their step."""
        restored = self.checkpoints.restore(self.programs.like(len(self.members)))
        if restored is None:
            configs, seeds = [m.config for m in self.members], [e.seed for e in self.experiments]
            first, state = 0, self.programs.start(configs, seeds)
        else:
            first, state, note = restored
            self._restore(note)
        self.writers = []
        for path in self.logs:
            truncate(path / "metrics.jsonl", first)
            self.writers.append(json_lines(path / "metrics.jsonl", self.console.warn))
        sizes = [(part.start, len(self.members[part])) for part in self.parts]
        return [self.programs.part(state, start, size) for start, size in sizes], first

    def _restore(self, note: dict[str, Any]) -> None:
        for i, kept in enumerate(note["members"]):
            interval = MeanAccumulator(note["names"], kept["interval"])
            self.progress[i] = Progress(metrics=kept["metrics"], interval=interval, diverged=kept["diverged"])
            self.history[i] = kept["history"]
        if note["values"] is not None:
            self._set_values(note["values"])

    def run(self, until: int | None = None) -> step.State:
        """Trains to the end, or to that step, and gives the states."""
        self.schedule, self.signals = self._schedule(until or self.first.steps), Signals()
        states, first = self.start()
        for checker in (*self.checkers_of_orders, *(c for of in self.checkers.values() for c in of)):
            checker.start()
        try:
            with self.signals:
                states = train(self, states, first)
            self.checkpoints.wait()
        finally:
            self.checkpoints.close()
        return _joined(states)

    # What the loop asks for

    def dispatch(
        self, states: list[step.State], start: int, stop: int, inputs: Any, settle: Callable[[], None]
    ) -> tuple[list[step.State], Any]:
        """Begins the steps from start to stop of every part of the members; compiles at the first call."""
        compile_s = self.programs.compile_s
        placed = {sharding: jax.device_put(inputs, sharding) for sharding in {*self.shardings}}
        new, packed = [], []
        for values, state, which, sharding in zip(
            self.values, states, self.which, self.shardings, strict=True
        ):
            state, metrics = self.programs.steps(values, state, placed[sharding], which, stop - start)
            new.append(state)
            packed.append(metrics)
        self.clock.skip(self.programs.compile_s - compile_s)
        return new, packed

    def record(self, states: list[step.State], start: int, metrics: list[Any]) -> None:
        """Adds the metrics (M, k, names, 2), by program, of k steps, and logs at the end of an interval."""
        rows, names = np.concatenate(metrics), self.programs.names
        members = zip(self.progress, self.experiments, self.writers, rows, strict=True)
        for progress, experiment, write, packed in members:
            if progress.diverged is None:
                for end, values in progress.record(names, start, packed, self.schedule, experiment.task):
                    write(end, {**values, "seconds": round(self.clock.seconds, 3)})
        k = rows.shape[1]
        self.clock.completed(k)
        each, stop = self.clock.seconds_per_step or math.nan, start + k
        examples_per_s = len(self.members) * self.first.train.batch / each
        loss = _median(rows[:, :, names.index("loss")])
        self.console.update(stop, {"loss": loss}, examples_per_s, each * (self.first.steps - stop))

    def between(self, states: list[step.State], step: int, due: Due) -> bool:
        """Evaluates, saves and stops as is due and as signals ask."""
        signal = self.signals.received
        if due.evaluation:
            self._evaluate(states, step)
        if signal or due.checkpoint:
            self._save(states, step)
        if signal and step < self.schedule.end:
            self.checkpoints.wait()
            raise Stopped(signal, step)
        return False

    def _evaluate(self, states: list[step.State], step: int) -> None:
        metrics: list[dict[str, float]] = [{} for _ in self.members]
        for name, (pipelines, which) in self.tests.items():
            for number, data in enumerate(pipelines):
                own = [i for i, of in enumerate(which) if of == number and self.diverged[i] is None]
                checker = self.checkers[name][number]
                for i, values in self._evaluate_members(name, data, own, states, checker).items():
                    metrics[i].update({f"{name}/{metric}": value for metric, value in values.items()})
        for progress, write, values in zip(self.progress, self.writers, metrics, strict=True):
            if values:
                progress.metrics = values
                write(step, values)

    def _evaluate_members(
        self, name: str, data: Pipeline, indices: list[int], states: list[step.State], checker: Checker
    ) -> dict[int, dict[str, float]]:
        """Metrics of these members on one evaluation's data; all members go through the program."""
        collected = {i: Collected() for i in indices}
        for n in range(data.steps):
            batch = read_batch(data, n, checker)
            measured = [
                self.programs.measure(name, values, state, batch)
                for values, state in zip(self.values, states, strict=True)
            ]
            packed = np.concatenate([np.asarray(metrics, np.float64) for metrics, _ in measured])
            for i in indices:
                collected[i].add(packed[i])
            if measured[0][1] is not None:
                real = real_rows(data, n)
                kept = examples(batch, real)
                predicted = _joined(jax.device_get([predictions for _, predictions in measured]))
                for i in indices:
                    own = jax.tree.map(lambda x, i=i: x[i], predicted)
                    collected[i].keep(examples(own, real), kept)
        metrics = {}
        for i in indices:
            experiment, names = self.experiments[i], self.programs.eval_names[name]
            means = MeanAccumulator(names, collected[i].total).finish(experiment.task)
            metrics[i] = means | score(name, as_evaluation(experiment.evals[name]), collected[i])
        return metrics

    def _save(self, states: list[step.State], n: int) -> None:
        kept = [
            {
                "metrics": finite(progress.metrics),
                "interval": self._interval(progress).sums.tolist(),
                "diverged": progress.diverged,
                "history": history,
            }
            for progress, history in zip(self.progress, self.history, strict=True)
        ]
        values = self.current_values() if any(self.history) else None
        names = self._interval(self.progress[0]).names
        note = {"step": n, "names": names, "members": kept, "values": values}
        self.checkpoints.save(n, _joined(states), note)

    def _interval(self, progress: Progress) -> MeanAccumulator:
        return progress.interval or MeanAccumulator(self.programs.names)

    def results(self) -> list[dict[str, Any]]:
        """Each member's result.json; written by `finish`."""
        each = self.clock.seconds / len(self.members)
        rate = self.clock.steps * self.first.train.batch / each if each else None
        parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(self.programs.one.params))
        results = []
        members = zip(self.metrics, self.diverged, self.history, strict=True)
        for i, (metrics, diverged, history) in enumerate(members):
            fault = (
                f"NotFinite: the loss or gradient of step {diverged:,} is not finite"
                if diverged is not None
                else ""
            )
            results.append(
                {
                    "exit": fault or "complete",
                    "metrics": metrics,
                    "steps": self.first.steps,
                    "examples_per_s": rate,
                    "train_s": each,
                    "parameters": parameters,
                    "together": self.folder.name,
                    "place": i,
                    **({"history": history} if history else {}),
                }
            )
        return results

    def finish(self, stopped: dict[int, str] | None = None) -> None:
        """Writes each member's result.json where it is missing.

        stopped: only of these members, by index, with the reason as their exit.
        """
        for i, (path, result) in enumerate(zip(self.logs, self.results(), strict=True)):
            if (path / "result.json").exists() or (stopped is not None and i not in stopped):
                continue
            if stopped is not None and self.diverged[i] is None:
                result = {**result, "exit": stopped[i]}
            write_text(path / "result.json", json.dumps(finite(result), indent=1))

    # Members that change during training

    def narrowed(self, states: step.State, n: int, indices: list[int], folder: Path) -> Lockstep:
        """A loop of these members alone, from step n on; states: of all members."""
        shape = self.shape._replace(size=min(self.shape.size, len(indices)))
        members = [self.members[i] for i in indices]
        other = Lockstep(self.programs, members, shape, folder, self.logs[0].parent, self.console)
        other.progress = [self.progress[i] for i in indices]
        other.clock.seconds = self.clock.seconds * len(indices) / len(self.members)
        other.clock.steps = self.clock.steps
        rows = np.asarray(indices)
        other._keep(jax.tree.map(lambda x: x[rows], states), n)
        other.claim()
        return other

    def current_values(self) -> list[dict[str, float]]:
        """The float knobs of each member as they are now."""
        members = []
        for values in self.values:
            columns = [np.asarray(column).tolist() for column in values.values()]
            members += [dict(zip(values, row, strict=True)) for row in zip(*columns, strict=True)]
        return members

    def take_over(
        self, states: step.State, n: int, source: list[int], values: list[dict[str, float]]
    ) -> None:
        """Makes these the states and knobs at step n. source: the index of the member that each copies."""
        for i, (index, knobs) in enumerate(zip(source, values, strict=True)):
            if index != i:
                event = {"step": n, "from": self.members[index].name, **knobs}
                self.history[i] = [*self.history[index], event]
        for progress, diverged in zip(self.progress, [self.diverged[i] for i in source], strict=True):
            progress.diverged = diverged
        self._set_values(values)
        self._keep(states, n)

    def _set_values(self, values: list[dict[str, float]]) -> None:
        names = self.programs.inputs
        self.values = [
            {name: jnp.asarray([knobs[name] for knobs in values[part]], jnp.float32) for name in names}
            for part in self.parts
        ]

    def _keep(self, states: step.State, n: int) -> None:
        """Saves the states in place of an earlier checkpoint of that step."""
        self._save([states], n)
        self.checkpoints.wait()
        self.checkpoints.close()


def _joined(parts: list[Any]) -> Any:
    """Trees of members as one, in the host's memory, so that nothing is compiled for it."""
    return parts[0] if len(parts) == 1 else jax.tree.map(_concatenated, *parts)


def _concatenated(*parts: Any) -> Any:
    if jnp.issubdtype(parts[0].dtype, jax.dtypes.prng_key):
        data = _concatenated(*map(jax.random.key_data, parts))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(parts[0]))
    return np.concatenate(jax.device_get(list(parts)))


def _median(rows: np.ndarray) -> float:
    """The median of the members' means (M, k, 2), where one is finite."""
    total, weight = rows.astype(np.float64).sum(1).T
    means = total[weight > 0] / weight[weight > 0]
    return float(np.median(means[np.isfinite(means)])) if np.isfinite(means).any() else math.nan
