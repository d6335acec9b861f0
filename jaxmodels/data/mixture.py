"""Several pipelines as one, each giving its share of the rows.

    place in the stream ──table──► (source, how many rows it gave before) ──► a row of the source's own stream

The table is Tijdeman's schedule ("The chairman assignment problem", 1980): whoever has waited longest for
what is due to it, so that after any number of rows every source is within one row of its share. It repeats
after as many rows as the weights' common denominator, so that any row of any step can be had alone.
Dimensions: B rows of a batch, P places of the table, K sources.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cached_property

import numpy as np

from jaxmodels.data.fingerprint import of_parts
from jaxmodels.data.order import check_seed, permute
from jaxmodels.pipeline import Pipeline, Spec

LONGEST = 1 << 16  # places of a table; weights that need more are rounded to this denominator
MOST = 256  # sources; the table has a column for each


class Mixture(Pipeline):
    """Rows of several pipelines that have the same spec, in fixed proportions.

    sources: name -> (pipeline, weight); only the ratios of the weights count. Each source's rows come in the
    source's own order, and its own batch size does not matter. Weights whose ratios need a denominator over
    65,536 are rounded to it, to at least one part. batch: rows of a batch. seed: which of two sources that
    wait equally long comes first.
    """

    seed: int

    def __init__(self, sources: Mapping[str, tuple[Pipeline, float]], *, batch: int, seed: int = 0):
        if not 1 <= len(sources) <= MOST:
            raise ValueError(
                f"there are {len(sources)} sources; wanted 1 to {MOST}: give pipelines with weights"
            )
        for name, (_, weight) in sources.items():
            if not 0 < weight < math.inf:
                raise ValueError(
                    f"the weight of {name} is {weight}; wanted a number above 0: change it or leave {name} out"
                )
        if batch < 1:
            raise ValueError(f"batch is {batch}; it must be at least 1")
        check_seed(seed)
        self.batch, self.seed = batch, seed
        self._names, self._sources = tuple(sources), tuple(pipeline for pipeline, _ in sources.values())
        self._parts = whole_parts([weight for _, weight in sources.values()])

    @property
    def parts(self) -> dict[str, int]:
        """The rows that each source gives in one run through the table."""
        return dict(zip(self._names, self._parts, strict=True))

    @cached_property
    def _table(self) -> np.ndarray:
        """How many rows each source gave before each place, and at last in all; (P + 1)K."""
        source_P = schedule(self._parts, self.seed)
        given_PK = source_P[:, None] == np.arange(len(self._parts))
        return np.concatenate([np.zeros((1, len(self._parts)), np.int64), np.cumsum(given_PK, 0)])

    def given(self, place: int | np.ndarray) -> np.ndarray:
        """How many rows each source gave before this place, or these places, of the stream; (B)K."""
        runs, within = np.divmod(place, len(self._table) - 1)
        return np.multiply.outer(runs, self._table[-1]) + self._table[within]

    @cached_property
    def steps(self) -> int:
        """Batches until every source has been passed through at least once."""
        sizes = zip(self._sources, self._parts, strict=True)
        rows = max(-(-source.steps * source.batch * sum(self._parts) // part) for source, part in sizes)
        return -(-rows // self.batch)

    @cached_property
    def spec(self) -> Spec:
        """Shape and type of each array of a batch, without the example axis; that of every source."""
        specs = [
            {key: (tuple(shape), np.dtype(dtype)) for key, (shape, dtype) in s.spec.items()}
            for s in self._sources
        ]
        for name, spec in zip(self._names, specs, strict=True):
            if spec != specs[0]:
                raise ValueError(
                    f"the batches of {name} hold {spec}, those of {self._names[0]} {specs[0]}; wanted the same arrays: "
                    "give all sources the same length and kind"
                )
        return specs[0]

    def source(self, step: int, start: int, stop: int) -> np.ndarray:
        """Which source, by its place among them, each row from start to stop of batch `step` comes from."""
        return np.diff(self.given(step * self.batch + np.arange(start, stop + 1)), axis=0).argmax(1)

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows start to stop of batch `step`."""
        source_B = self.source(step, start, stop)
        batch = {name: np.zeros((stop - start, *shape), dtype) for name, (shape, dtype) in self.spec.items()}
        for k, first in enumerate(self.given(step * self.batch + start).tolist()):
            own = np.nonzero(source_B == k)[0]
            for at, rows in _stretch(self._sources[k], first, len(own)):
                for name, x in rows.items():
                    batch[name][own[at : at + len(x)]] = x
        return batch

    def fingerprint(self) -> str:
        """Changes when an example or the order of the examples does; see data/fingerprint.py."""
        return of_parts(
            [name, one.fingerprint()] for name, one in zip(self._names, self._sources, strict=True)
        )

    def broken(self) -> list[str]:
        """The examples of all parts that could not be loaded and were passed over; see GrainPipeline."""
        found: list[str] = []
        for name, one in zip(self._names, self._sources, strict=True):
            found += [f"{name}: {example}" for example in one.broken()]
        return found

    def describe(self) -> str:
        """The sources and their shares, in one phrase."""
        shares = (f"{name} {part / sum(self._parts):.1%}" for name, part in self.parts.items())
        return f"a mixture of {', '.join(shares)}, in batches of {self.batch:,}"


def _stretch(source: Pipeline, first: int, count: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The rows of a source's stream from `first` on, in pieces that each lie in one of its batches; (place, rows)."""
    at = 0
    while at < count:
        step, start = divmod(first + at, source.batch)
        stop = min(source.batch, start + count - at)
        yield at, source.rows(step, start, stop)
        at += stop - start


def whole_parts(weights: list[float]) -> list[int]:
    """Whole numbers in the ratio of the weights; in a nearby ratio where they would add up to more than LONGEST."""
    exact = [Fraction(str(weight)) for weight in weights]  # 0.1 is meant as a tenth
    shares = [weight / sum(exact) for weight in exact]
    denominator = math.lcm(*(share.denominator for share in shares))
    if denominator <= LONGEST:
        return [int(share * denominator) for share in shares]
    parts = [max(1, math.floor(share * LONGEST)) for share in shares]
    while (over := sum(parts) - LONGEST) != 0:  # those that are furthest from their share give or take one
        sign = 1 if over > 0 else -1
        free = [k for k, part in enumerate(parts) if part > sign]
        for k in sorted(free, key=lambda k: sign * (shares[k] * LONGEST - parts[k]))[: abs(over)]:
            parts[k] -= sign
    return parts


def schedule(parts: list[int], seed: int) -> np.ndarray:
    """The source of each of sum(parts) places; before any place p source k has been chosen p * parts[k] / sum times, +-1."""
    total, double = sum(parts), max(1, 2 * len(parts) - 2)
    first = permute(
        np.arange(len(parts)), len(parts), seed
    ).tolist()  # who goes first where deadlines are equal
    part_K = np.array(parts, np.int64)[np.argsort(first)]
    source_K = np.argsort(first)
    due_K, out = np.zeros_like(part_K), np.empty(total, np.int64)
    for place in range(total):
        due_K += part_K  # what is owed, times total
        waits = due_K * double >= total
        deadline_K = np.where(waits, (total * (double - 1) - due_K * double) / part_K, np.inf)
        k = int(deadline_K.argmin())
        due_K[k] -= total
        out[place] = source_K[k]
    return out
