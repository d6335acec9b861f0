"""Members trained in lockstep, so many in a program: one loop, one checkpoint of all states, and a log for each.

SWEEP/members/NAME/metrics.jsonl, result.json     of each member, as in a run's folder
SWEEP/together/N/checkpoints, members.json        of the members that share a loop
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
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
from jaxmodels.pipeline import Pipeline, Spec
from jaxmodels.runs import experiment_file
from jaxmodels.runs.checkpoint import Checkpoints
from jaxmodels.runs.files import write_text
from jaxmodels.runs.learned import write_learned
from jaxmodels.runs.metrics_file import finite, json_lines, truncate
from jaxmodels.sweeps.grouping import same
from jaxmodels.sweeps.member_files import How, Member, claim, run_of
from jaxmodels.sweeps.programs import GroupPrograms
from jaxmodels.training import feed as feeding
from jaxmodels.training.check_batches import Checker
from jaxmodels.training.evaluate import evaluates
from jaxmodels.training.metrics import MeanAccumulator
from jaxmodels.training.programs import segments
from jaxmodels.training.signals import Signals


class Stopped(Exception):
    """A signal ended the loop after it was saved."""

    def __init__(self, number: int, step: int):
        super().__init__(number)
        self.exit_status, self.step = of_signal(number), step


class Lockstep:
    """A loop of members that share programs. folder: of this loop; members: of all members' logs."""

    def __init__(
        self,
        programs: GroupPrograms,
        members: Sequence[Member],
        how: How,
        folder: Path,
        logs: Path,
        console: Console,
    ):
        self.programs, self.members, self.how, self.console, self.folder = (
            programs,
            list(members),
            how,
            console,
            folder,
        )
        self.parts = [slice(i, i + how.size) for i in range(0, len(members), how.size)]
        self.experiments = [programs.file.build(m.config) for m in members]
        self.first: Experiment = self.experiments[0]
        self.values = [programs.values([m.config for m in self.members[part]]) for part in self.parts]
        self.checkpoints = Checkpoints(folder / "checkpoints", keep=1, warn=console.warn, run=run_of(folder))
        self.logs = [logs / m.name for m in members]
        self.intervals: list[MeanAccumulator] = []
        self.metrics: list[dict[str, float]] = [{} for _ in members]
        self.diverged: list[int | None] = [None] * len(
            members
        )  # the step at which a member was no longer finite
        self.history: list[list[dict[str, Any]]] = [
            [] for _ in members
        ]  # of knobs that were changed on the way
        self.train_s, self.trained = 0.0, 0  # of the steps before the last event
        self._since = (0, 0.0)  # the step of the last event, and when its training went on
        self.orders, self.which = distinct([e.train for e in self.experiments])
        self.tests = {
            name: distinct([as_evaluation(e.evals[name]).data for e in self.experiments])
            for name in self.first.evals
        }
        state = programs.one

        def look(data, name):
            return Checker(self.first.task, data, name, state.params, state.extra)

        self.looks = {name: [look(data, name) for data in of] for name, (of, _) in self.tests.items()}
        self.looks_at_orders = [look(data, "train") for data in self.orders]

    @property
    def reached(self) -> int:
        """The step of the newest checkpoint; 0 before the first."""
        return max(self.checkpoints.steps(), default=0)

    def claim(self) -> None:
        """Notes on the disk whose loop this is, and from now on what its members learn from their data."""
        claim(self.folder, self.members, self.how)
        for member, experiment, log in zip(self.members, self.experiments, self.logs, strict=True):
            experiment_file.name_classes(experiment, self.console.warn)
            self.programs.file.memory(member.config).keep(partial(write_learned, log))

    def start(self) -> tuple[list[step.State], int]:
        """The members' states by program, from the newest checkpoint or new, and their step."""
        restored = self.checkpoints.restore(self.programs.like(len(self.members)))
        if restored is None:
            n, state = (
                0,
                self.programs.start([m.config for m in self.members], [e.seed for e in self.experiments]),
            )
        else:
            n, state, note = restored
            self.intervals = []
            for i, kept in enumerate(note["members"]):
                sums = MeanAccumulator(note["names"])
                sums.sums = np.asarray(kept["interval"], np.float64)
                self.intervals.append(sums)
                self.metrics[i], self.diverged[i], self.history[i] = (
                    kept["metrics"],
                    kept["diverged"],
                    kept["history"],
                )
            if note["values"] is not None:
                self._set_values(note["values"])
        self.writers = []
        for path in self.logs:
            truncate(path / "metrics.jsonl", n)
            self.writers.append(json_lines(path / "metrics.jsonl", self.console.warn))
        sizes = [(part.start, len(self.members[part])) for part in self.parts]
        return [self.programs.part(state, at, size) for at, size in sizes], n

    def run(self, until: int | None = None) -> step.State:
        """Trains to the end, or to that step, and gives the states."""
        first, until = self.first, until or self.first.steps
        states, n = self.start()
        events = tuple(e for e in (first.eval_every, first.checkpoint_every) if e)
        if until < first.steps:
            events = (*events, until)
        spans = list(segments(n, until, self.how.k, events))
        near = make_mesh("data=1", jax.devices()[:1])
        for checker in (*self.looks_at_orders, *(checker for of in self.looks.values() for checker in of)):
            checker.start()
        feed = feeding.Feed(Orders(self.orders, self.looks_at_orders), near, spans, resident=False)
        which, signals = [np.asarray(self.which[part], np.int32) for part in self.parts], Signals()
        splits = [self.programs.of_batches(of, len(self.orders)) for of in which]
        pending: tuple[int, list[Any]] | None = None
        try:
            with signals:
                self._since = (n, time.perf_counter())
                for start, stop in spans:
                    moving = feed.get(lambda: True).moving  # type: ignore[union-attr]
                    compiling = self.programs.compile_s
                    packed: list[Any] = []
                    placed = {split: jax.device_put(moving, split) for split in {*splits}}
                    for i, (values, of, split) in enumerate(zip(self.values, which, splits, strict=True)):
                        states[i], metrics = self.programs.steps(
                            values, states[i], placed[split], of, stop - start
                        )
                        packed.append(metrics)
                    self._since = (n, self._since[1] + self.programs.compile_s - compiling)
                    if pending:
                        self._account(*pending)
                    pending = (start, packed)
                    signals.poll()
                    at_event = any(stop % e == 0 for e in events) or stop == until
                    if not (at_event or signals.received):
                        continue
                    self._account(*pending)
                    pending = None
                    now = time.perf_counter()
                    self.train_s, self.trained = self.train_s + now - self._since[1], self.trained + stop - n
                    n = stop
                    if at_event and (stop == until or evaluates(stop, first.eval_every, first.steps)):
                        self._evaluate(states, stop)
                    if signals.received or stop == until or _due(stop, first.checkpoint_every):
                        self._save(states, stop)
                    if signals.received and stop < until:
                        self.checkpoints.wait()
                        raise Stopped(signals.received, stop)
                    self._since = (n, time.perf_counter())
            self.checkpoints.wait()
        finally:
            feed.close()
            self.checkpoints.close()
        return _joined(states)

    def _account(self, start: int, packed: list[Any]) -> None:
        """Adds the metrics (M, k, names, 2), by program, of a dispatch's steps, and logs those that end an interval."""
        rows, names = np.concatenate([np.asarray(x) for x in packed]), self.programs.names
        faults = names.index("faults")
        every, steps = self.first.log_every, self.first.steps
        if not self.intervals:
            self.intervals = [MeanAccumulator(names) for _ in self.members]
        for i, of in enumerate(rows):
            if self.diverged[i] is not None:
                continue
            n, stop = start, start + len(of)
            while n < stop:
                end = min(stop, (n // every + 1) * every)
                bad = np.nonzero(of[n - start : end - start, faults, 0])[0]
                if len(bad):
                    self.diverged[i] = n + int(bad[0])
                    break
                self.intervals[i].add(of[n - start : end - start])
                if end % every == 0 or end == steps:
                    values = self.intervals[i].finish(self.experiments[i].task)
                    shown = {f"train/{k}": v for k, v in values.items() if k != "faults"}
                    self.writers[i](end, {**shown, "seconds": round(self.train_s, 3)})
                    self.intervals[i] = MeanAccumulator(names)
                n = end
        done = start + rows.shape[1]
        a_step = (self.train_s + time.perf_counter() - self._since[1]) / max(
            1, self.trained + done - self._since[0]
        )
        examples_per_s = len(self.members) * self.first.train.batch / a_step
        loss = _median(rows[:, :, names.index("loss")])
        self.console.update(done, {"loss": loss}, examples_per_s, a_step * (steps - done))

    def _evaluate(self, states: list[step.State], n: int) -> None:
        found: list[dict[str, float]] = [{} for _ in self.members]
        for name, (pipelines, which) in self.tests.items():
            for d, data in enumerate(pipelines):
                mine = [i for i, w in enumerate(which) if w == d and self.diverged[i] is None]
                for i, metrics in self._one(name, data, mine, states, self.looks[name][d]).items():
                    found[i].update({f"{name}/{k}": v for k, v in metrics.items()})
        for i, metrics in enumerate(found):
            if metrics:
                self.metrics[i] = metrics
                self.writers[i](n, metrics)

    def _one(
        self, name: str, data: Pipeline, which: list[int], states: list[step.State], look: Checker
    ) -> dict[int, dict[str, float]]:
        """Metrics of these members on one evaluation's data; all members go through the program."""
        total: Any = 0.0
        predictions: list[list[Any]] = [[] for _ in self.members]
        batches = []
        for n in range(data.steps):
            batch = feeding.read(data, n, look)
            got = [self.programs.measure(name, v, s, batch) for v, s in zip(self.values, states, strict=True)]
            total = total + np.concatenate([np.asarray(packed, np.float64) for packed, _ in got])
            if got[0][1] is not None:
                real, host = (
                    feeding.real_rows(data, n),
                    _joined(jax.device_get([predicted for _, predicted in got])),
                )
                batches.append(jax.tree.map(lambda x, real=real: np.asarray(x)[real], batch))
                for i in which:
                    predictions[i].append(jax.tree.map(lambda x, i=i, real=real: x[i][real], host))
        found = {}
        for i in which:
            sums = MeanAccumulator(self.programs.eval_names[name])
            sums.sums = total[i]
            score = as_evaluation(self.experiments[i].evals[name]).score
            found[i] = sums.finish(self.experiments[i].task) | (
                dict(score(predictions[i], batches)) if score else {}
            )
        return found

    def _save(self, states: list[step.State], n: int) -> None:
        kept = [
            {"metrics": finite(m), "interval": s.sums.tolist(), "diverged": d, "history": h}
            for m, s, d, h in zip(self.metrics, self.intervals, self.diverged, self.history, strict=True)
        ]
        values = self.current_values() if any(self.history) else None
        note = {"step": n, "names": self.intervals[0].names, "members": kept, "values": values}
        self.checkpoints.save(n, _joined(states), note)

    def results(self) -> list[dict[str, Any]]:
        """What result.json says of each member; written by `finish`."""
        each = self.train_s / len(self.members)
        rate = self.trained * self.first.train.batch / each if each else None
        parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(self.programs.one.params))
        return [
            {
                "exit": "complete"
                if d is None
                else f"NotFinite: the loss or gradient of step {d:,} is not finite",
                "metrics": m,
                "steps": self.first.steps,
                "examples_per_s": rate,
                "train_s": each,
                "parameters": parameters,
                "together": self.folder.name,
                "place": i,
                **({"history": h} if h else {}),
            }
            for i, (m, d, h) in enumerate(zip(self.metrics, self.diverged, self.history, strict=True))
        ]

    def finish(self, why: dict[int, str] | None = None) -> None:
        """Writes every member's result.json that is not there; or of some alone, that were stopped, and why they were."""
        for i, (path, result) in enumerate(zip(self.logs, self.results(), strict=True)):
            if (why is None or i in why) and not (path / "result.json").exists():
                result = result if why is None or self.diverged[i] is not None else {**result, "exit": why[i]}
                write_text(path / "result.json", json.dumps(finite(result), indent=1))

    # A population that changes on the way

    def narrowed(self, states: step.State, n: int, places: list[int], folder: Path) -> Lockstep:
        """A loop of these members alone, from step n on; states: of all members."""
        how = self.how._replace(size=min(self.how.size, len(places)))
        members = [self.members[i] for i in places]
        other = Lockstep(self.programs, members, how, folder, self.logs[0].parent, self.console)
        other.intervals = [self.intervals[i] for i in places]
        other.metrics = [self.metrics[i] for i in places]
        other.diverged = [self.diverged[i] for i in places]
        other.train_s, other.trained = self.train_s * len(places) / len(self.members), self.trained
        at = np.asarray(places)
        other._keep(jax.tree.map(lambda x: x[at], states), n)
        other.claim()
        return other

    def current_values(self) -> list[dict[str, float]]:
        """The float knobs of each member as they are now."""
        parts = [{k: np.asarray(x).tolist() for k, x in values.items()} for values in self.values]
        return [
            {k: x[i] for k, x in part.items()}
            for part in parts
            for i in range(len(next(iter(part.values()), [])))
        ]

    def take_over(
        self, states: step.State, n: int, source: list[int], values: list[dict[str, float]]
    ) -> None:
        """Makes these the states and knobs at step n; source: whose each one was."""
        for i, (at, of) in enumerate(zip(source, values, strict=True)):
            if at != i:
                self.history[i] = [*self.history[at], {"step": n, "from": self.members[at].name, **of}]
        self.diverged = [self.diverged[at] for at in source]
        self._set_values(values)
        self._keep(states, n)

    def _set_values(self, values: list[dict[str, float]]) -> None:
        names = self.programs.inputs
        self.values = [
            {name: jnp.asarray([of[name] for of in values[part]], jnp.float32) for name in names}
            for part in self.parts
        ]

    def _keep(self, states: step.State, n: int) -> None:
        """Saves them in place of what was saved of that step."""
        self._save([states], n)
        self.checkpoints.wait()
        self.checkpoints.close()


def distinct(pipelines: Sequence[Pipeline]) -> tuple[list[Pipeline], list[int]]:
    """(pipelines that differ, which of them each one is)."""
    kept: list[Pipeline] = []
    which = []
    for data in pipelines:
        at = next((i for i, other in enumerate(kept) if same(data, other)), None)
        if at is None:
            at = len(kept)
            kept.append(data)
        which.append(at)
    return kept, which


class Orders(Pipeline):
    """The batches of several pipelines, on a first axis of as many, as one pipeline for a feed; looks: what checks each."""

    steps: int
    spec: Spec

    def __init__(self, of: Sequence[Pipeline], looks: Sequence[Checker | None]):
        self._looks, self._of, self.steps, self.spec = looks, of, of[0].steps, of[0].spec
        self.batch = len(of)  # what a feed takes for examples

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Whole batches of the pipelines start to stop."""
        pairs = zip(self._of[start:stop], self._looks[start:stop], strict=True)
        read = [feeding.read(data, step, look) for data, look in pairs]
        return {name: np.stack([batch[name] for batch in read]) for name in read[0]}


class Trial:
    """The batches of the first steps, of all data orders as a run has them: what programs are tried with."""

    def __init__(self, experiments: Sequence[Experiment]):
        self.orders, self._which = distinct([e.train for e in experiments])

    def __call__(self, size: int, k: int) -> tuple[Any, np.ndarray]:
        """(batches of k steps, which of the orders is each one's of the first `size` members)."""
        of = Orders(self.orders, [None] * len(self.orders))
        read = feeding.stack([of.rows(n, 0, of.batch) for n in range(k)])
        return jax.device_put(read), np.asarray(self._which[:size], np.int32)


def _joined(parts: list[Any]) -> Any:
    """Trees of members, all in one, in the host's memory: nothing is compiled for it."""
    return parts[0] if len(parts) == 1 else jax.tree.map(_beside, *parts)


def _beside(*parts: Any) -> Any:
    if jnp.issubdtype(parts[0].dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(
            _beside(*map(jax.random.key_data, parts)), impl=jax.random.key_impl(parts[0])
        )
    return np.concatenate(jax.device_get(list(parts)))


def _median(rows: np.ndarray) -> float:
    """Of the members' means (M, k, 2), where there is a finite one."""
    total, weight = rows.astype(np.float64).sum(1).T
    means = total[weight > 0] / weight[weight > 0]
    return float(np.median(means[np.isfinite(means)])) if np.isfinite(means).any() else math.nan


def _due(n: int, every: int | None) -> bool:
    return bool(every and n % every == 0)
