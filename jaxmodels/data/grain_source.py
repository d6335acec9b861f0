"""Examples that are decoded one by one, such as image files: read ahead by Grain's threads or worker processes.

    number k of a piece of the stream ──► places of its rows ──► Order ──► load ──► augment ──► rows of the batch

Grain maps a pure function of k over range(n): a MapDataset, whose element k never depends on who computes it. Whoever asks
for the same rows of one batch after another reads from an iterator that runs ahead; any other rows are computed at once.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import multiprocessing.connection
import os
import reprlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any, NamedTuple, Protocol

import grain
import numpy as np
from absl import flags

from jaxmodels.data.order import Order, Remainder, mix
from jaxmodels.data.pipeline import Spec

Example = dict[str, Any]
Load = Callable[[Any], Mapping[str, Any]]
Change = Callable[[Example, np.random.Generator], Mapping[str, Any]]

ENDLESS = 1 << 48


class Source(Protocol):
    """Anything with a length and random access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class GrainPipeline:
    """Examples that have to be loaded one at a time. It satisfies the Pipeline protocol.

    source: what to load, with a length and random access (a list of paths, an ArrayRecord source), or a function that
        gives it, called on first use. load(item): the example, a dict of arrays; it must not depend on anything else.
    seed: shuffles each pass; None keeps the order. remainder: see Order; by default "wrap" when shuffled and "pad" when not.
    augment(example, rng): random changes; the generator depends on seed and place in the stream alone.
    workers: processes; 0 loads in this one. Then load and augment must be picklable, and a script needs
        `if __name__ == "__main__":`. threads: in each process; by default one for each core, and none in workers.
    ahead: batches kept ready. spec: shapes and types of an example's arrays; read from the first example where absent.

    A batch holds the arrays, stacked, and "weight", float32: 1, or 0 for padding, whose arrays are zeros. An example may
    bring a "weight" of its own, of any shape. The batches are the same, bit for bit, for any workers and threads.
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
    ):
        if workers < 0 or ahead < 1 or (threads is not None and threads < 0):
            raise ValueError(
                f"came workers={workers}, threads={threads}, ahead={ahead}; wanted at least 0, 0 and 1; mend the negative one"
            )
        self._source = source
        self.batch = batch
        self.seed = seed
        self.remainder: Remainder = remainder or ("pad" if seed is None else "wrap")
        self._load, self._augment = load, augment
        self.workers, self.ahead = workers, ahead
        self.threads = threads if threads is not None else 0 if workers else min(16, os.cpu_count() or 1)
        self._spec = spec
        self._lock = threading.Lock()
        self._stream: _Stream | None = None
        self._last: tuple[int, int, int] | None = None

    @cached_property
    def source(self) -> Source:
        """What is loaded, by index."""
        return self._source() if callable(self._source) else self._source

    @cached_property
    def order(self) -> Order:
        """Which example is where."""
        return Order(len(self.source), self.batch, self.seed, self.remainder)

    @property
    def steps(self) -> int:
        """Batches in one pass."""
        return self.order.steps

    @cached_property
    def spec(self) -> Spec:
        """Shape and type of each array of a batch, without the example axis."""
        found = self._spec
        if found is None:
            first = _Loader(self.source, self._load, self._augment, self.seed, {}).example(0, 0)
            found = {name: (x.shape, x.dtype) for name, x in first.items()}
        return {"weight": ((), np.dtype(np.float32)), **found}

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows start to stop of batch `step`. The same rows of step + 1 are then loaded ahead of time."""
        if step < 0 or not 0 <= start < stop <= self.batch:
            raise ValueError(
                f"rows {start} to {stop} of batch {step}; wanted some of rows 0 to {self.batch}, of a batch >= 0"
            )
        if self._repeats:
            step %= self.steps
        with self._lock:
            continues = self._last == (step - 1, start, stop)
            self._last = (step, start, stop)
            if self._stream is None or (continues and not self._stream.is_at(step, start, stop)):
                self._close()
                self._stream = _Stream(self, step, start, stop)
            if self._stream.is_at(step, start, stop):
                try:
                    return self._stream.take()
                except BaseException:
                    self._close()
                    raise
        pieces = self._pieces(step, start, stop)
        with _iterate(grain.MapDataset.range(pieces.each).map(pieces), self.threads, pieces.each) as got:
            return _stack(list(got))

    @cached_property
    def _repeats(self) -> bool:
        """Whether every pass is the same, so that the next evaluation continues the stream of this one."""
        whole = self.remainder != "wrap" or self.order.n % self.batch == 0
        return self.seed is None and self._augment is None and whole

    def _pieces(self, step: int, start: int, stop: int) -> _Pieces:
        parallel = max(1, self.workers) * max(1, self.threads)
        size = max(1, min(32, (stop - start) // (4 * parallel)))  # several for each thread or process, but few to hand over
        loader = _Loader(self.source, self._load, self._augment, self.seed, self.spec)
        return _Pieces(loader, self.order, step, start, stop, size)

    def describe(self) -> str:
        """The data and its batches, in one phrase."""
        return self.order.describe()

    def resident(self) -> None:
        """Nothing: the examples are not held in memory."""
        return None

    def close(self) -> None:
        """Ends the threads and processes that run ahead; rows() starts them again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class _Loader(NamedTuple):
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
            raise ValueError(
                f"example {index} ({_SHORT.repr(item)}) could not be loaded: {type(error).__name__}: {error}; "
                "mend it or leave it out of the source"
            ) from error
        for name in arrays.keys() | (self.spec.keys() - {"weight"} if self.spec else ()):
            came = (arrays[name].shape, arrays[name].dtype) if name in arrays else None
            if self.spec and came != self.spec.get(name):
                raise ValueError(
                    f"example {index} ({_SHORT.repr(item)}): {name} is {came}, wanted {self.spec.get(name)} as in the spec or "
                    "the first example; make load give the same for every item"
                )
        return arrays

    def _generator(self, place: int) -> np.random.Generator:
        key = mix(np.uint64(place) ^ mix(np.uint64((self.seed or 0) % 2**64)))
        return np.random.Generator(np.random.Philox(key=int(key)))


class _Pieces(NamedTuple):
    """The stream of rows start to stop of the batches from `step` on, cut into pieces of `size` rows; piece k when called."""

    loader: _Loader
    order: Order
    step: int
    start: int
    stop: int
    size: int

    @property
    def each(self) -> int:
        """Pieces of a batch."""
        return -(-(self.stop - self.start) // self.size)

    def where(self, k: int) -> tuple[int, int, int]:
        """(step, start, stop) of piece k."""
        batch, piece = divmod(k, self.each)
        start = self.start + piece * self.size
        return self.step + batch, start, min(start + self.size, self.stop)

    def __call__(self, k: int) -> dict[str, np.ndarray]:
        step, start, stop = self.where(int(k))
        spec = self.loader.spec
        rows = {name: np.zeros((stop - start, *shape), dtype) for name, (shape, dtype) in spec.items()}
        for row, index in enumerate(self.order.indices(step, start, stop).tolist()):
            if index < 0:
                continue
            example = self.loader.example(index, step * self.order.batch + start + row)
            for name, x in {"weight": np.float32(1), **example}.items():
                rows[name][row] = x
        return rows


class _Stream:
    """Batches from one step on, always of the same rows, made ahead of time."""

    def __init__(self, data: GrainPipeline, step: int, start: int, stop: int):
        self._pieces = data._pieces(step, start, stop)
        self._taken = 0
        self._period = data.steps if data._repeats else None
        pieces = grain.MapDataset.range(ENDLESS).map(self._pieces)
        self._iterator = _iterate(pieces, data.threads, data.ahead * self._pieces.each, data.workers)

    def is_at(self, step: int, start: int, stop: int) -> bool:
        """Whether these rows come next."""
        next = self._pieces.step + self._taken
        return (next % self._period if self._period else next, start, stop) == (step, self._pieces.start, self._pieces.stop)

    def take(self) -> dict[str, np.ndarray]:
        """The next batch."""
        pieces = []
        for piece in range(self._pieces.each):
            try:
                pieces.append(next(self._iterator))
            except ValueError:
                raise
            except Exception as error:
                step, start, stop = self._pieces.where(self._taken * self._pieces.each + piece)
                indices = self._pieces.order.indices(step, start, stop).tolist()
                raise RuntimeError(
                    f"loading failed at or after example {indices[0]} (rows {start} to {stop} of batch {step}, examples "
                    f"{indices}): {error} Exit code -9 is what the system gives when memory runs out, -7 when /dev/shm is "
                    "full; then use fewer workers or smaller batches"
                ) from error
        self._taken += 1
        return _stack(pieces)

    def close(self) -> None:
        """Ends threads and processes."""
        self._iterator.close()


class _iterate:
    """A Grain iterator over the dataset, `ahead` elements ahead; closed when left."""

    def __init__(self, dataset: grain.MapDataset, threads: int, ahead: int, workers: int = 0):
        threads = min(threads, ahead)
        options = grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=(threads if workers else ahead) if threads else 0
        )
        elements = dataset.to_iter_dataset(options)
        if workers:
            if not flags.FLAGS.is_parsed():  # Grain reads absl flags, which only absl's own main parses
                flags.FLAGS.mark_as_parsed()
            processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=max(1, ahead // workers))
            elements = elements.mp_prefetch(processes, worker_init_fn=partial(_begin, _loose_modules()))
        self._elements = iter(elements)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._elements)

    def __next__(self) -> Any:
        return next(self._elements)

    def close(self) -> None:
        self._elements.close()

    def __enter__(self) -> _iterate:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _stack(pieces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Pieces of a batch behind one another, copied out of the memory shared with the workers."""
    return {name: np.concatenate([np.asarray(piece[name]) for piece in pieces]) for name in pieces[0]}


def _loose_modules() -> dict[str, str]:
    """Modules that were run from a file outside the import path, such as an experiment's, with their files."""
    loose = {}
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        file = getattr(spec, "origin", None) or ""
        if "." not in name and name != "__main__" and file.endswith(".py"):
            finders = (f for f in sys.meta_path if hasattr(f, "find_spec"))
            if all(finder.find_spec(name, None) is None for finder in finders):
                loose[name] = file
    return loose


def _die_with_parent() -> None:
    """Waits for the end of the parent process, however it comes, and ends this one.

    Linux's PR_SET_PDEATHSIG does not do: it means the parent's *thread*, and Grain starts workers in threads that end when
    the iterator is closed, so that it would kill workers which have shared memory still to give back.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)


def _begin(modules: Mapping[str, str], worker: int, workers: int) -> None:
    """Runs first in each worker process: it dies with its parent, leaves Ctrl-C to it, and keeps off the accelerators."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, name="die-with-parent", daemon=True).start()
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:  # the parent's main module has imported it
        sys.modules["jax"].config.update("jax_platforms", "cpu")
    for name, file in modules.items():
        spec = importlib.util.spec_from_file_location(name, file)
        if name not in sys.modules and spec is not None and spec.loader is not None:
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
