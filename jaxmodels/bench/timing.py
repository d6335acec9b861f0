"""Timing in rounds: each measures the references and every program once, in alternating order.

What differs between two moments, such as a clock or a neighbour, then meets all of them alike.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.pipeline import Pipeline


class Effort(NamedTuple):
    """How long to measure."""

    rounds: int
    seconds: float  # of each program in a round, at least one call
    warmup: int  # calls before the first round


FULL, QUICK = Effort(10, 0.5, 3), Effort(5, 0.05, 2)


def rounds(
    run: Callable[[], None], references: Mapping[str, Callable[[], float]], effort: Effort
) -> tuple[list[list[float]], dict[str, list[float]]]:
    """(seconds of each call by round, the references by name and round)."""
    for _ in range(effort.warmup):
        run()
    calls: list[list[float]] = []
    found: dict[str, list[float]] = {name: [] for name in references}

    def measure_references() -> None:
        for name, reference in references.items():
            found[name].append(reference())

    for n in range(effort.rounds):
        if n % 2 == 0:
            measure_references()
        calls.append(_timed(run, effort.seconds))
        if n % 2:
            measure_references()
    return calls, found


def _timed(run: Callable[[], None], seconds: float) -> list[float]:
    times: list[float] = []
    while not times or (sum(times) < seconds and len(times) < 1000):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def summary(calls: Sequence[Sequence[float]]) -> dict[str, float]:
    """Median, 5th and 95th percentile of all calls, in milliseconds."""
    low, median, high = np.percentile([t for one in calls for t in one], [5, 50, 95])
    return {"median_ms": 1e3 * median, "p5_ms": 1e3 * low, "p95_ms": 1e3 * high}


def input_wait(feed: Callable[[Any], None], data: Pipeline, seconds: float) -> float:
    """The share of time that training waits for its data, of batches read by one thread ahead."""
    ahead: queue.Queue[Any] = queue.Queue(maxsize=2)
    stop = threading.Event()

    def read() -> None:
        n = 0
        while not stop.is_set():
            batch = data.rows(n, 0, data.batch)
            while not stop.is_set():
                try:
                    ahead.put(batch, timeout=0.05)
                    break
                except queue.Full:
                    continue
            n += 1

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        feed(ahead.get())  # the first is waited for in any case
        waited, begun, steps = 0.0, time.perf_counter(), 0
        while steps < 3 or time.perf_counter() - begun < seconds:
            start = time.perf_counter()
            batch = ahead.get()
            waited += time.perf_counter() - start
            feed(batch)
            steps += 1
        return waited / (time.perf_counter() - begun)
    finally:
        stop.set()
        thread.join()
