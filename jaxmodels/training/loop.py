"""The training loop, for a run and for the members of a sweep alike.

A dispatch runs k steps as one program. While it runs, the feed's thread reads the next input and the metrics
of the dispatch before arrive. Whatever else a run does happens between two dispatches, when the device is
idle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmodels.experiment import Pipeline
from jaxmodels.parallel.compile import max_in_flight
from jaxmodels.training.clock import Clock
from jaxmodels.training.feed import Feed
from jaxmodels.training.schedule import Due, Schedule
from jaxmodels.training.signals import Signals


class Run(Protocol):
    """What the loop trains."""

    data: Pipeline
    resident: bool  # whether the data set lies on the device
    check: Any  # of each batch that is read; see Feed
    mesh: Mesh  # on which a batch is placed
    schedule: Schedule
    k: int  # steps in a dispatch
    clock: Clock
    signals: Signals
    feed: Feed | None  # of the training that goes on
    on_step: Callable[[int], object]  # called after each dispatch

    def dispatch(self, state: Any, start: int, stop: int, inputs: Any, settle: Callable[[], None]) -> Any:
        """Begins the steps from start to stop: (state, metrics), both of which may not be there yet.

        settle() waits for what runs: for before a program is compiled.
        """

    def record(self, state: Any, start: int, metrics: Any) -> None:
        """Takes note of a dispatch's metrics, now on the host; state: the newest."""

    def between(self, state: Any, step: int, due: Due) -> bool:
        """Evaluates, saves and stops as is due and as signals ask; True ends the training here."""


class Pending:
    """Dispatches that still run: the metrics of dispatch n are recorded while n + 1 runs."""

    def __init__(self, mesh: Mesh, record: Callable[[int, Any], None]):
        self._record, self._depth = record, max_in_flight(mesh)
        self._running: deque[tuple[int, Any]] = deque()

    def add(self, start: int, metrics: Any) -> None:
        """Takes a dispatch that has just begun, and waits for those that it leaves behind."""
        self._running.append((start, metrics))
        while len(self._running) > self._depth:
            self._complete()

    def drain(self) -> None:
        """Waits for all of them."""
        while self._running:
            self._complete()

    def busy(self) -> bool:
        """Whether the device still works."""
        return bool(self._running) and not jax.tree.leaves(self._running[-1][1])[-1].is_ready()

    def _complete(self) -> None:
        start, metrics = self._running.popleft()
        self._record(start, jax.tree.map(np.asarray, metrics))


def train(run: Run, state: Any, step: int) -> Any:
    """Trains from `step` to the end, or to where `between` ends it, and gives the state."""
    first = step
    pending = Pending(run.mesh, lambda start, metrics: run.record(state, start, metrics))

    def gives_up() -> bool:
        """Whether to stop for a signal although the data source has not answered yet."""
        return run.signals.received != 0 and step > first

    segments = run.schedule.segments(step, run.k)
    with Feed(run.data, run.mesh, segments, resident=run.resident, check=run.check) as run.feed:
        run.clock.start()
        for start, stop, inputs in run.feed.until(gives_up, pending.busy):
            state, metrics = run.dispatch(state, start, stop, inputs, pending.drain)
            pending.add(start, metrics)
            step = stop
            run.on_step(step)
            run.signals.poll(step)
            due = run.schedule.due(step)
            if due or run.signals.received:
                pending.drain()
                with run.clock.paused():
                    if run.between(state, step, due):
                        return state
        pending.drain()
        if run.signals.received and step < run.schedule.end:
            with run.clock.paused():  # saved before the feed is waited for, whose data source may hang
                run.between(state, step, Due(False, False))
    return state
