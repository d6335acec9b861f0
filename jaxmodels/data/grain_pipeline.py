"""Examples that are loaded one by one, such as image files: prefetched by Grain's threads or processes.

    piece k of the stream ──► positions of its rows ──► Order ──► load ──► augment ──► rows of the batch

Grain maps a pure function over k (a MapDataset), so element k never depends on the thread or process that
computes it. A caller that asks for the same rows of one batch after another reads from an iterator that runs
ahead; any other rows are computed at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np

from jaxmodels import choices
from jaxmodels.data.broken import Broken, FirstExamples, OnBroken
from jaxmodels.data.example_loader import Change, Example, Load, Loader, Source
from jaxmodels.data.fingerprint import of_source
from jaxmodels.data.order import Order, Remainder
from jaxmodels.data.prefetch import BROKEN, Pieces, Stream
from jaxmodels.pipeline import Pipeline, Spec
from jaxmodels.runs.learned import PipelineMemory, remembering


class GrainPipeline(Pipeline):
    """Examples that have to be loaded one at a time.

    source: what to load, with a length and random access (a list of paths, an ArrayRecord source), or a
        function that returns it, called on first use.
    load(item): the example, a dict of arrays; it must depend on nothing but the item.
    seed: shuffles each pass; None keeps the order.
    remainder: see Order; by default "wrap" when shuffled and "pad" when not.
    augment(example, rng): random changes; the generator depends on the seed and the position in the stream
        alone.
    workers: processes; 0 loads in this one. With workers, load and augment must be functions of a module, and
        a script needs `if __name__ == "__main__":`.
    threads: in each process; by default one for each core, or one in each worker.
    on_broken: "skip" gives an example that cannot be loaded weight 0 and zeros, in every pass and after every
        resumption, and lists it in broken(). Errors of the machine or the program (a missing file, memory)
        are always raised, and so is an error that all of the first examples have in common.
    ahead: batches kept ready.
    spec: shapes and types of an example's arrays; read from the first example where absent.

    A batch holds the arrays, stacked, and "weight", float32: 1, or 0 for padding, whose arrays are zeros. An
    example may bring its own "weight", of any shape. The batches are the same, bit for bit, for any number of
    workers and threads.
    """

    def __init__(
        self,
        source: Source | Callable[[], Source],
        *,
        batch: int,
        seed: int | None = None,
        remainder: Remainder | None = None,
        load: Load,
        augment: Change | None = None,
        workers: int = 0,
        threads: int | None = None,
        ahead: int = 2,
        spec: Spec | None = None,
        on_broken: OnBroken = "raise",
    ):
        choices.check(type(self).__name__, "on_broken", on_broken, OnBroken)
        if workers < 0 or ahead < 1 or (threads is not None and threads < 0):
            raise ValueError(
                f"{type(self).__name__}: got workers={workers}, threads={threads}, ahead={ahead}; expected "
                "at least 0, 0 and 1. Raise what is below"
            )
        self._source = remembering(source) if callable(source) else source
        self._kept = PipelineMemory.here()
        self.batch = batch
        self.seed = seed
        self.remainder: Remainder = ("pad" if seed is None else "wrap") if remainder is None else remainder
        choices.check(type(self).__name__, "remainder", self.remainder, Remainder)
        self._load, self._augment = load, augment
        self.workers, self.ahead = workers, ahead
        self.threads = threads if threads is not None else 1 if workers else min(16, os.cpu_count() or 1)
        self._spec = spec
        self.on_broken = on_broken
        self._broken: dict[int, str] = {}
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._last: tuple[int, int, int] | None = None

    @cached_property
    def source(self) -> Source:
        """The items to load, by index."""
        source = self._source() if callable(self._source) else self._source
        if not len(source):
            raise ValueError(
                f"{type(self).__name__}: got an empty source; expected at least one example. Look at the "
                "folder or list that it was made from"
            )
        return source

    @cached_property
    def order(self) -> Order:
        """Which example each row holds."""
        return Order(len(self.source), self.batch, self.seed, self.remainder)

    @cached_property
    def _first_examples(self) -> FirstExamples:
        return FirstExamples(len(self.source))

    @cached_property
    def steps(self) -> int:
        """Batches in one pass; where the data is not here, in a pass of the data of the run's training."""
        examples = self._kept.get("examples", lambda: len(self.source))
        return Order(examples, self.batch, self.seed, self.remainder).steps

    @cached_property
    def spec(self) -> Spec:
        """Shape and type of each array of a batch, without the example axis."""
        spec = self._kept.spec(self._first) if self._spec is None else self._spec
        return {"weight": ((), np.dtype(np.float32)), **spec}

    def _first(self) -> Example:
        """The first example as a batch of one; with on_broken="skip" the first that can be loaded."""
        loader = Loader(self.source, self._load, self._augment, self.seed, {})
        for index in range(len(self.source)):
            try:
                return {name: x[None] for name, x in loader.example(index, 0).items()}
            except Broken as error:
                if self.on_broken == "raise":
                    raise
                last = error
        raise last

    def broken(self) -> list[str]:
        """With on_broken="skip", the examples read so far that could not be loaded, each with the reason."""
        return [self._broken[index] for index in sorted(self._broken)]

    def indices(self, step: int, start: int, stop: int) -> np.ndarray:
        """The examples in rows start to stop of batch `step`; -1 is padding."""
        return self.order.indices(step, start, stop)

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows start to stop of batch `step`. The same rows of step + 1 are then loaded ahead of time."""
        if step < 0 or not 0 <= start < stop <= self.batch:
            raise ValueError(
                f"{type(self).__name__}: got rows {start} to {stop} of batch {step}; expected rows from 0 to "
                f"{self.batch}, of a batch from 0 on. Ask for those"
            )
        if self._repeats:
            step %= self.steps
        rows = None
        with self._lock:
            continues = self._last == (step - 1, start, stop)
            self._last = (step, start, stop)
            if self._stream is None or (continues and not self._stream.is_at(step, start, stop)):
                self._close()
                self._stream = Stream(
                    self._pieces(step, start, stop),
                    period=self.steps if self._repeats else None,
                    ahead=self.ahead,
                    workers=self.workers,
                    threads=self.threads,
                )
            if self._stream.is_at(step, start, stop):
                try:
                    rows = self._stream.take()
                except BaseException:
                    self._close()
                    raise
        if rows is None:
            rows = self._load_now(step, start, stop)
        self._record_broken(rows.pop(BROKEN, None), step, start, stop)
        return rows

    def _record_broken(self, broken_B: np.ndarray | None, step: int, start: int, stop: int) -> None:
        """Keeps the errors of the broken rows, by loading them again here: a worker may have met them."""
        if broken_B is None:
            return
        loader = Loader(self.source, self._load, self._augment, self.seed, self.spec)
        indices_B = self.order.indices(step, start, stop)
        errors: dict[int, Broken] = {}
        for row in np.flatnonzero(broken_B).tolist():
            index = int(indices_B[row])
            if index in self._broken:
                continue
            try:
                loader.example(index, step * self.batch + start + row)
            except Broken as error:
                errors[index] = error
        self._first_examples.note(bool((~broken_B & (indices_B >= 0)).any()), errors)
        self._broken.update({index: f"{error.what}: {error.why}" for index, error in errors.items()})

    def _load_now(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        pieces = self._pieces(step, start, stop)
        with ThreadPoolExecutor(max(1, self.threads)) as pool:
            parts = list(pool.map(pieces, range(pieces.per_batch)))
        return {name: np.concatenate([part[name] for part in parts]) for name in pieces.spec}

    @cached_property
    def _repeats(self) -> bool:
        """Whether every pass is the same, so that the next evaluation continues this one's stream."""
        same_rows = self.remainder != "wrap" or self.order.n % self.batch == 0
        return self.seed is None and self._augment is None and same_rows

    def _pieces(self, step: int, start: int, stop: int) -> Pieces:
        parallel = max(1, self.workers) * max(1, self.threads)
        # Several pieces for each thread or process, but few to hand over.
        size = max(1, min(32, (stop - start) // (4 * parallel)))
        loader = Loader(self.source, self._load, self._augment, self.seed, self.spec)
        return Pieces(loader, self.order, step, start, stop, size, self.on_broken == "skip")

    def fingerprint(self) -> str:
        """Changes when an example or the order of the examples does; see data/fingerprint.py."""
        return of_source(self.source, self._load if self.on_broken == "raise" else self._load_or_error)

    def _load_or_error(self, item: Any) -> Mapping[str, Any]:
        try:
            return self._load(item)
        except Exception as error:
            return {"broken": np.array(type(error).__name__)}

    def describe(self) -> str:
        """The data and its batches, in one phrase."""
        return self.order.describe()

    def close(self) -> None:
        """Ends the threads and processes that prefetch; rows() starts them again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
