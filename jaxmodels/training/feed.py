"""Batches on their way to the devices: a thread reads and places them ahead, so that no step waits for small
data.

A dispatch runs the steps [start, stop). Its input is the batches themselves, stacked, or, where the whole
data set lies on the device, the indices of their rows.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from jaxmodels.parallel.placement import put_batch
from jaxmodels.pipeline import Pipeline
from jaxmodels.training.batches import stack_steps


class Dispatch(NamedTuple):
    """The input of one dispatch, on the devices."""

    start: int
    stop: int
    inputs: Any


class Feed:
    """Reads ahead over (start, stop) segments, in a thread that ends with the context.

    resident: whether the data set lies on the device, so that only row indices move. depth: dispatches kept
    ready. check: called with each batch that is read: (batch, step, its first row).
    """

    def __init__(
        self,
        data: Pipeline,
        mesh: Mesh,
        segments: Iterable[tuple[int, int]],
        *,
        resident: bool,
        depth: int = 2,
        check: Callable[[Any, int, int], None] | None = None,
    ):
        self._data, self._mesh, self._resident, self._check = data, mesh, resident, check
        self.reading = self.placing = 0.0  # seconds of the thread, to name a bottleneck
        self.idle = 0.0  # seconds in which the device had nothing to do for want of input
        self._queue: queue.Queue = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(iter(segments),), name="feed", daemon=True)
        self._thread.start()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the thread, or leaves it behind where the data source does not answer."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _work(self, segments: Iterator[tuple[int, int]]) -> None:
        try:
            for start, stop in segments:
                self._offer(Dispatch(start, stop, self._place(start, stop)))
                if self._stop.is_set():
                    return
            self._offer(None)
        except BaseException as error:  # raised again where the batch is wanted
            self._offer(error)

    def _offer(self, item: Any) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return

    def _place(self, start: int, stop: int) -> Any:
        begun = time.perf_counter()
        read_s = 0.0

        def rows(first: int, last: int) -> Any:
            nonlocal read_s
            if self._resident:
                read: Any = np.asarray(self._data.indices(np.arange(start, stop), first, last), np.int32)
            else:
                read = stack_steps([self._rows(n, first, last) for n in range(start, stop)])
            read_s = time.perf_counter() - begun
            return read

        placed = put_batch(rows, self._data.batch, self._mesh, leading=1)
        self.reading += read_s
        self.placing += time.perf_counter() - begun - read_s
        return placed

    def _rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        batch = self._data.rows(step, start, stop)
        if self._check is not None:
            self._check(batch, step, start)
        return batch

    def until(
        self, give_up: Callable[[], bool] = lambda: False, busy: Callable[[], bool] = lambda: True
    ) -> Iterator[Dispatch]:
        """The dispatches in order, to the last one, or until give_up() where the next is not there yet.

        busy() says whether the device still works meanwhile: where it does not, the wait counts as idle.
        """
        while (item := self._next(give_up, busy)) is not None:
            yield item

    def _next(self, give_up: Callable[[], bool], busy: Callable[[], bool]) -> Dispatch | None:
        while True:
            begun = time.perf_counter()
            try:
                item = self._queue.get(timeout=0.001)
            except queue.Empty:
                if not busy():
                    self.idle += time.perf_counter() - begun
                if give_up():
                    return None
                if self._thread.is_alive() or not self._queue.empty():
                    continue
                # A thread that can says why it ends.
                raise RuntimeError(
                    "the thread that reads the data has ended without a word; start the run again"
                ) from None
            if isinstance(item, BaseException):
                raise item
            return item

    @property
    def waited(self) -> float:
        """Seconds that the device waited for this feed: at most what its work took, whatever else the machine
        did.
        """
        return min(self.idle, self.reading + self.placing)
