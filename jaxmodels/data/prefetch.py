"""Rows of batches loaded ahead of time, by threads or by worker processes.

A batch is divided into pieces of a few rows. Piece k is a pure function of k, so it never depends on which
thread or process computes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import grain
import numpy as np

from jaxmodels.data.broken import Broken
from jaxmodels.data.example_loader import Loader
from jaxmodels.data.order import Order
from jaxmodels.data.workers import WorkerLost, Workers
from jaxmodels.pipeline import Spec

BROKEN = "\0broken"  # a key beside a batch's arrays: marks the rows whose examples could not be loaded
ENDLESS = 1 << 48


@dataclass(frozen=True)
class Pieces:
    """Rows start to stop of the batches from `step` on, in pieces of `size` rows; a call returns piece k."""

    loader: Loader
    order: Order
    step: int
    start: int
    stop: int
    size: int
    skip_broken: bool

    @property
    def spec(self) -> Spec:
        """Shapes and types of a piece's arrays, with the mark of broken rows where these are skipped."""
        return {**self.loader.spec, **({BROKEN: ((), np.dtype(bool))} if self.skip_broken else {})}

    @property
    def per_batch(self) -> int:
        """Pieces of a batch."""
        return -(-(self.stop - self.start) // self.size)

    def rows(self, k: int) -> tuple[int, int, int]:
        """(step, start, stop) of piece k."""
        batch, piece = divmod(k, self.per_batch)
        start = self.start + piece * self.size
        return self.step + batch, start, min(start + self.size, self.stop)

    def zeros(self, n: int) -> dict[str, np.ndarray]:
        """Arrays of zeros for n rows."""
        return {name: np.zeros((n, *shape), dtype) for name, (shape, dtype) in self.spec.items()}

    def __call__(self, k: int) -> dict[str, np.ndarray]:
        """The arrays of piece k."""
        step, start, stop = self.rows(int(k))
        arrays = self.zeros(stop - start)
        for row, index in enumerate(self.order.indices(step, start, stop).tolist()):
            if index < 0:
                continue
            try:
                example = self.loader.example(index, step * self.order.batch + start + row)
            except Broken:
                if not self.skip_broken:
                    raise
                arrays[BROKEN][row] = True
                continue
            for name, x in {"weight": np.float32(1), **example}.items():
                arrays[name][row] = x
        return arrays


class Stream:
    """Batches from one step on, always of the same rows, loaded ahead of time.

    period: batches after which the stream repeats, None where it does not. ahead: batches kept ready.
    workers: processes, 0 for none. threads: in each process.
    """

    def __init__(self, pieces: Pieces, *, period: int | None, ahead: int, workers: int, threads: int):
        self._pieces = pieces
        self._taken = 0
        self._period = period
        self._workers = self._iterator = None
        buffer = ahead * pieces.per_batch
        if workers:
            self._workers = Workers(_Job(pieces, threads, -(-buffer // workers)), workers)
        else:
            self._iterator = _iterate(pieces, threads, buffer)

    def is_at(self, step: int, start: int, stop: int) -> bool:
        """Whether these rows come next."""
        next_step = self._pieces.step + self._taken
        if self._period:
            next_step %= self._period
        return (next_step, self._pieces.start, self._pieces.stop) == (step, start, stop)

    def take(self) -> dict[str, np.ndarray]:
        """The next batch."""
        pieces = self._pieces
        batch = pieces.zeros(pieces.stop - pieces.start)
        for k in range(self._taken * pieces.per_batch, (self._taken + 1) * pieces.per_batch):
            _, start, stop = pieces.rows(k)
            self._fill(k, {name: x[start - pieces.start : stop - pieces.start] for name, x in batch.items()})
        self._taken += 1
        return batch

    def _fill(self, k: int, arrays: Mapping[str, np.ndarray]) -> None:
        if self._iterator is not None:
            piece = next(self._iterator)
            for name, x in arrays.items():
                x[...] = piece[name]
        if self._workers is not None:
            try:
                self._workers.read(k, list(arrays.values()))
            except WorkerLost as error:
                step, start, stop = self._pieces.rows(k)
                examples = self._pieces.order.indices(step, start, stop).tolist()
                raise WorkerLost(
                    f"{error}: got the end of it before rows {start} to {stop} of batch {step}, examples "
                    f"{examples}; expected these or later ones. Look at these examples, or use fewer workers"
                ) from error

    def close(self) -> None:
        """Ends threads and processes."""
        for running in (self._workers, self._iterator):
            if running is not None:
                running.close()


@dataclass(frozen=True)
class _Job:
    """What each worker process does: every `count`-th piece."""

    pieces: Pieces
    threads: int
    ahead: int

    def __call__(self, worker: int, count: int) -> Iterator[list[np.ndarray]]:
        for piece in _iterate(self.pieces, self.threads, self.ahead, worker, count):
            yield [piece[name] for name in self.pieces.spec]


def _iterate(
    pieces: Pieces, threads: int, ahead: int, first: int = 0, every: int = 1
) -> grain.DatasetIterator:
    """Every `every`-th piece from the first on; Grain's threads, if any, keep `ahead` of them ready."""
    buffer = max(threads, ahead) if threads else 0
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer)
    return iter(grain.MapDataset.range(first, ENDLESS, every).map(pieces).to_iter_dataset(options))
