"""Examples that are decoded one by one, such as image files: read ahead by Grain's threads or worker processes.

    number k of a piece of the stream ──► places of its rows ──► Order ──► load ──► augment ──► rows of the batch

Grain maps a pure function over the numbers k: a MapDataset, whose element k never depends on who computes it.
Whoever asks for the same rows of one batch after another reads from an iterator that runs ahead; any other
rows are computed at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import grain
import numpy as np

from jaxmodels import choices
from jaxmodels.data.broken import Broken, FirstExamples, OnBroken, broken, shortly
from jaxmodels.data.fingerprint import of_source
from jaxmodels.data.order import Order, Remainder, mix
from jaxmodels.data.workers import WorkerLost, Workers
from jaxmodels.pipeline import Pipeline, Spec
from jaxmodels.runs.learned import PipelineMemory, remembering

Example = dict[str, Any]
Load = Callable[[Any], Mapping[str, Any]]
Change = Callable[[Example, np.random.Generator], Mapping[str, Any]]
_BROKEN = "\0broken"  # beside a batch's arrays on its way: the rows whose examples could not be loaded
ENDLESS = 1 << 48


class Source(Protocol):
    """Anything with a length and random access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class GrainPipeline(Pipeline):
    """Examples that have to be loaded one at a time.

    source: what to load, with a length and random access (a list of paths, an ArrayRecord source), or a
        function that gives it, called on first use. load(item): the example, a dict of arrays; it must not
        depend on anything else.
    seed: shuffles each pass; None keeps the order. remainder: see Order; by default "wrap" when shuffled and
        "pad" when not.
    augment(example, rng): random changes; the generator depends on seed and place in the stream alone.
    workers: processes; 0 loads in this one. With workers, load and augment must be functions of a module, and
        a script needs `if __name__ == "__main__":`. threads: in each process; by default one for each core,
        or one in each worker.
    on_broken: "skip" gives an example that cannot be loaded weight 0 and zeros, in every pass and after every
        resumption, and lists it in broken(). Errors of the machine or the program (a missing file, memory)
        are raised always, and so is one that is the same for all of the first examples that are read.
    ahead: batches kept ready. spec: shapes and types of an example's arrays; read from the first example
        where absent.

    A batch holds the arrays, stacked, and "weight", float32: 1, or 0 for padding, whose arrays are zeros. An
    example may bring a "weight" of its own, of any shape. The batches are the same, bit for bit, for any
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
                f"came workers={workers}, threads={threads}, ahead={ahead}; wanted at least 0, 0 and 1; raise what is below"
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
        self._stream: _Stream | None = None
        self._last: tuple[int, int, int] | None = None

    @cached_property
    def source(self) -> Source:
        """What is loaded, by index."""
        source = self._source() if callable(self._source) else self._source
        if not len(source):
            raise ValueError(
                "the source is empty; wanted at least one example; look at the folder or list it was made from"
            )
        return source

    @cached_property
    def order(self) -> Order:
        """Which example is where."""
        return Order(len(self.source), self.batch, self.seed, self.remainder)

    @cached_property
    def _first_examples(self) -> FirstExamples:
        return FirstExamples(len(self.source))

    @cached_property
    def steps(self) -> int:
        """Batches in one pass; where the data is not here, in one of those that the run was trained on."""
        examples = self._kept.get("examples", lambda: len(self.source))
        return Order(examples, self.batch, self.seed, self.remainder).steps

    @cached_property
    def spec(self) -> Spec:
        """Shape and type of each array of a batch, without the example axis."""
        found = self._kept.spec(self._first) if self._spec is None else self._spec
        return {"weight": ((), np.dtype(np.float32)), **found}

    def _first(self) -> Example:
        """The first example as a batch of one; of those that can be loaded, where others are passed over."""
        loader = _Loader(self.source, self._load, self._augment, self.seed, {})
        for index in range(len(self.source)):
            try:
                return {name: x[None] for name, x in loader.example(index, 0).items()}
            except Broken as error:
                if self.on_broken == "raise":
                    raise
                last = error
        raise last

    def broken(self) -> list[str]:
        """With on_broken="skip", the examples of the rows read so far that could not be loaded, each with the reason."""
        return [self._broken[index] for index in sorted(self._broken)]

    def indices(self, step: int, start: int, stop: int) -> np.ndarray:
        """The examples in rows start to stop of batch `step`; -1 is padding."""
        return self.order.indices(step, start, stop)

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows start to stop of batch `step`. The same rows of step + 1 are then loaded ahead of time."""
        if step < 0 or not 0 <= start < stop <= self.batch:
            raise ValueError(
                f"rows {start} to {stop} of batch {step}; wanted some of rows 0 to {self.batch}, of a batch >= 0"
            )
        if self._repeats:
            step %= self.steps
        rows = None
        with self._lock:
            continues = self._last == (step - 1, start, stop)
            self._last = (step, start, stop)
            if self._stream is None or (continues and not self._stream.is_at(step, start, stop)):
                self._close()
                self._stream = _Stream(self, step, start, stop)
            if self._stream.is_at(step, start, stop):
                try:
                    rows = self._stream.take()
                except BaseException:
                    self._close()
                    raise
        if rows is None:
            rows = self._at_once(step, start, stop)
        self._note(rows.pop(_BROKEN, None), step, start, stop)
        return rows

    def _note(self, broken_B: np.ndarray | None, step: int, start: int, stop: int) -> None:
        """Keeps what was wrong with the broken rows: loaded again here, where a worker process found them."""
        if broken_B is None:
            return
        loader = _Loader(self.source, self._load, self._augment, self.seed, self.spec)
        indices_B = self.order.indices(step, start, stop)
        found: dict[int, Broken] = {}
        for row in np.flatnonzero(broken_B).tolist():
            index = int(indices_B[row])
            if index in self._broken:
                continue
            try:
                loader.example(index, step * self.batch + start + row)
            except Broken as error:
                found[index] = error
        self._first_examples.note(bool((~broken_B & (indices_B >= 0)).any()), found)
        self._broken.update({index: f"{error.what}: {error.why}" for index, error in found.items()})

    def _at_once(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        pieces = self._pieces(step, start, stop)
        with ThreadPoolExecutor(max(1, self.threads)) as pool:
            parts = list(pool.map(pieces, range(pieces.each)))
        return {name: np.concatenate([part[name] for part in parts]) for name in pieces.kinds}

    @cached_property
    def _repeats(self) -> bool:
        """Whether every pass is the same, so that the next evaluation continues the stream of this one."""
        whole = self.remainder != "wrap" or self.order.n % self.batch == 0
        return self.seed is None and self._augment is None and whole

    def _pieces(self, step: int, start: int, stop: int) -> _Pieces:
        parallel = max(1, self.workers) * max(1, self.threads)
        size = max(
            1, min(32, (stop - start) // (4 * parallel))
        )  # several for each thread or process, but few to hand over
        loader = _Loader(self.source, self._load, self._augment, self.seed, self.spec)
        return _Pieces(loader, self.order, step, start, stop, size, self.on_broken)

    def fingerprint(self) -> str:
        """Changes when an example or the order of the examples does; see data/fingerprint.py."""
        return of_source(self.source, self._load if self.on_broken == "raise" else self._load_whole)

    def _load_whole(self, item: Any) -> Mapping[str, Any]:
        try:
            return self._load(item)
        except Exception as error:
            return {"broken": np.array(type(error).__name__)}

    def describe(self) -> str:
        """The data and its batches, in one phrase."""
        return self.order.describe()

    def close(self) -> None:
        """Ends the threads and processes that run ahead; rows() starts them again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


@dataclass(frozen=True)
class _Loader:
    """One example as a function of index and place. It crosses to the worker processes."""

    source: Source
    load: Load
    augment: Change | None
    seed: int | None
    spec: Spec

    def example(self, index: int, place: int) -> dict[str, np.ndarray]:
        item = None
        try:
            item = self.source[index]
            example = dict(self.load(item))
            if self.augment is not None:
                example = dict(self.augment(example, self._generator(place)))
            arrays = {name: np.asarray(x) for name, x in example.items()}
        except Exception as error:
            raise broken(index, item, error) from error
        for name in arrays.keys() | (self.spec.keys() - {"weight"} if self.spec else ()):
            came = (arrays[name].shape, arrays[name].dtype) if name in arrays else None
            if self.spec and came != self.spec.get(name):
                raise ValueError(
                    f"example {index} ({shortly(item)}): {name} is {came}, wanted {self.spec.get(name)} as in the spec "
                    "or the first example; make load give the same for every item"
                )
        return arrays

    def _generator(self, place: int) -> np.random.Generator:
        key = mix(np.uint64(place) ^ mix(np.uint64((self.seed or 0) % 2**64)))
        return np.random.Generator(np.random.Philox(key=int(key)))


@dataclass(frozen=True)
class _Pieces:
    """Rows start to stop of the batches from `step` on, cut into pieces of `size` rows; gives piece k when called."""

    loader: _Loader
    order: Order
    step: int
    start: int
    stop: int
    size: int
    on_broken: OnBroken = "raise"

    @property
    def kinds(self) -> Spec:
        """Shapes and types of what is made, with the mark of broken rows where they are passed over."""
        return {**self.loader.spec, **({_BROKEN: ((), np.dtype(bool))} if self.on_broken == "skip" else {})}

    @property
    def each(self) -> int:
        """Pieces of a batch."""
        return -(-(self.stop - self.start) // self.size)

    def where(self, k: int) -> tuple[int, int, int]:
        """(step, start, stop) of piece k."""
        batch, piece = divmod(k, self.each)
        start = self.start + piece * self.size
        return self.step + batch, start, min(start + self.size, self.stop)

    def empty(self, n: int) -> dict[str, np.ndarray]:
        """Zeros for n rows."""
        return {name: np.zeros((n, *shape), dtype) for name, (shape, dtype) in self.kinds.items()}

    def __call__(self, k: int) -> dict[str, np.ndarray]:
        step, start, stop = self.where(int(k))
        rows = self.empty(stop - start)
        for row, index in enumerate(self.order.indices(step, start, stop).tolist()):
            if index < 0:
                continue
            try:
                example = self.loader.example(index, step * self.order.batch + start + row)
            except Broken:
                if self.on_broken == "raise":
                    raise
                rows[_BROKEN][row] = True
                continue
            for name, x in {"weight": np.float32(1), **example}.items():
                rows[name][row] = x
        return rows


class _Stream:
    """Batches from one step on, always of the same rows, made ahead of time."""

    def __init__(self, data: GrainPipeline, step: int, start: int, stop: int):
        self._pieces = pieces = data._pieces(step, start, stop)
        self._taken = 0
        self._period = data.steps if data._repeats else None
        self._workers = self._parts = None
        ahead = data.ahead * pieces.each
        if data.workers:
            self._workers = Workers(_Job(pieces, data.threads, -(-ahead // data.workers)), data.workers)
        else:
            self._parts = _iterate(pieces, data.threads, ahead)

    def is_at(self, step: int, start: int, stop: int) -> bool:
        """Whether these rows come next."""
        next = self._pieces.step + self._taken
        return (next % self._period if self._period else next, start, stop) == (
            step,
            self._pieces.start,
            self._pieces.stop,
        )

    def take(self) -> dict[str, np.ndarray]:
        """The next batch."""
        pieces = self._pieces
        rows = pieces.empty(pieces.stop - pieces.start)
        for k in range(self._taken * pieces.each, (self._taken + 1) * pieces.each):
            _, start, stop = pieces.where(k)
            self._fill(k, {name: x[start - pieces.start : stop - pieces.start] for name, x in rows.items()})
        self._taken += 1
        return rows

    def _fill(self, k: int, part: Mapping[str, np.ndarray]) -> None:
        if self._parts is not None:
            ready = next(self._parts)
            for name, x in part.items():
                x[...] = ready[name]
        if self._workers is not None:
            try:
                self._workers.read(k, list(part.values()))
            except WorkerLost as error:
                step, start, stop = self._pieces.where(k)
                examples = self._pieces.order.indices(step, start, stop).tolist()
                raise WorkerLost(
                    f"{error}: got the end of it before rows {start} to {stop} of batch {step}, examples {examples}; "
                    "expected these or later ones. Look at these examples, or use fewer workers"
                ) from error

    def close(self) -> None:
        """Ends threads and processes."""
        for running in (self._workers, self._parts):
            if running is not None:
                running.close()


@dataclass(frozen=True)
class _Job:
    """What each worker process does: every `count`-th piece."""

    pieces: _Pieces
    threads: int
    ahead: int

    def __call__(self, worker: int, count: int) -> Iterator[list[np.ndarray]]:
        for piece in _iterate(self.pieces, self.threads, self.ahead, worker, count):
            yield [piece[name] for name in self.pieces.kinds]


def _iterate(
    pieces: _Pieces, threads: int, ahead: int, first: int = 0, every: int = 1
) -> grain.DatasetIterator:
    """Every `every`-th piece from the first on; Grain's threads, where there are any, keep `ahead` of them ready."""
    options = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=max(threads, ahead) if threads else 0
    )
    return iter(grain.MapDataset.range(first, ENDLESS, every).map(pieces).to_iter_dataset(options))
