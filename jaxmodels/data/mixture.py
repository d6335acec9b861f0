"""Several pipelines as one, each giving its share of the rows.

    position in the stream ──table──► (source, rows that it gave before) ──► a row of the source's own stream

The table is Tijdeman's schedule ("The chairman assignment problem", 1980): the next row is from the source
with the earliest deadline, so that after any number of rows every source is within one row of its share. It
repeats after as many rows as the weights' common denominator, so any row of any step can be computed alone.
Dimensions: B rows of a batch, P positions of the table, K sources.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cached_property

import numpy as np

from jaxmodels.data.fingerprint import of_parts
from jaxmodels.data.order import check_batch, check_seed, permute
from jaxmodels.pipeline import Pipeline, Spec

LONGEST = 1 << 16  # positions of a table; weights that need more are rounded to this denominator
MOST = 256  # sources; the table has a column for each


class Mixture(Pipeline):
    """Rows of several pipelines that have the same spec, in fixed proportions.

    sources: name -> (pipeline, weight); only the ratios of the weights matter. Each source keeps its own
        order of rows, and its batch size does not matter. Weights whose ratios need a denominator above
        65,536 are rounded to it, to at least one part.
    batch: rows of a batch.
    seed: decides which of two sources with equal deadlines is first.
    """

    seed: int

    def __init__(self, sources: Mapping[str, tuple[Pipeline, float]], *, batch: int, seed: int = 0):
        if not 1 <= len(sources) <= MOST:
            raise ValueError(
                f"Mixture: got {len(sources)} sources; expected 1 to {MOST}. Give pipelines with weights"
            )
        for name, (_, weight) in sources.items():
            if not 0 < weight < math.inf:
                raise ValueError(
                    f"Mixture: got the weight {weight} of {name}; expected a number above 0. Change it or "
                    f"remove {name}"
                )
        check_batch(batch)
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
        """The rows that each source gave before each position and, last, in all; (P + 1)K."""
        source_P = schedule(self._parts, self.seed)
        given_PK = source_P[:, None] == np.arange(len(self._parts))
        return np.concatenate([np.zeros((1, len(self._parts)), np.int64), np.cumsum(given_PK, 0)])

    def given(self, position: int | np.ndarray) -> np.ndarray:
        """The rows that each source gave before one position of the stream (K), or before several (BK)."""
        runs, within = np.divmod(position, len(self._table) - 1)
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
                    f"Mixture: got batches of {name} with {spec}, and of {self._names[0]} with {specs[0]}; "
                    "expected the same arrays. Give all sources the same length and kind"
                )
        return specs[0]

    def source(self, step: int, start: int, stop: int) -> np.ndarray:
        """The index of the source of each row from start to stop of batch `step`."""
        return np.diff(self.given(step * self.batch + np.arange(start, stop + 1)), axis=0).argmax(1)

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows start to stop of batch `step`."""
        source_B = self.source(step, start, stop)
        batch = {name: np.zeros((stop - start, *shape), dtype) for name, (shape, dtype) in self.spec.items()}
        for k, first in enumerate(self.given(step * self.batch + start).tolist()):
            own = np.nonzero(source_B == k)[0]
            for start_own, rows in _consecutive(self._sources[k], first, len(own)):
                for name, x in rows.items():
                    batch[name][own[start_own : start_own + len(x)]] = x
        return batch

    def fingerprint(self) -> str:
        """Changes when an example or the order of the examples does; see data/fingerprint.py."""
        return of_parts(
            [name, source.fingerprint()] for name, source in zip(self._names, self._sources, strict=True)
        )

    def broken(self) -> list[str]:
        """The examples of all sources that could not be loaded and were skipped; see GrainPipeline."""
        examples: list[str] = []
        for name, source in zip(self._names, self._sources, strict=True):
            examples += [f"{name}: {example}" for example in source.broken()]
        return examples

    def describe(self) -> str:
        """The sources and their shares, in one phrase."""
        shares = (f"{name} {part / sum(self._parts):.1%}" for name, part in self.parts.items())
        return f"a mixture of {', '.join(shares)}, in batches of {self.batch:,}"


def _consecutive(source: Pipeline, first: int, count: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """`count` rows of a source's stream from `first` on, a batch at a time: (rows before, rows)."""
    before = 0
    while before < count:
        step, start = divmod(first + before, source.batch)
        stop = min(source.batch, start + count - before)
        yield before, source.rows(step, start, stop)
        before += stop - start


def whole_parts(weights: list[float]) -> list[int]:
    """Whole numbers in the ratio of the weights; in a near ratio where their sum would be above LONGEST."""
    exact = [Fraction(str(weight)) for weight in weights]  # 0.1 is meant as a tenth
    shares = [weight / sum(exact) for weight in exact]
    denominator = math.lcm(*(share.denominator for share in shares))
    if denominator <= LONGEST:
        return [int(share * denominator) for share in shares]
    parts = [max(1, math.floor(share * LONGEST)) for share in shares]
    while (over := sum(parts) - LONGEST) != 0:  # the parts furthest from their share change by one
        sign = 1 if over > 0 else -1
        free = [k for k, part in enumerate(parts) if part > sign]
        for k in sorted(free, key=lambda k: sign * (shares[k] * LONGEST - parts[k]))[: abs(over)]:
            parts[k] -= sign
    return parts


def schedule(parts: list[int], seed: int) -> np.ndarray:
    """The source of each of sum(parts) positions.

    Before any position p source k has been chosen p * parts[k] / sum(parts) times, give or take one.
    """
    total, double = sum(parts), max(1, 2 * len(parts) - 2)
    rank_K = permute(np.arange(len(parts)), len(parts), seed)  # the lowest is first where deadlines are equal
    source_K = np.argsort(rank_K)
    part_K = np.array(parts, np.int64)[source_K]
    due_K, out = np.zeros_like(part_K), np.empty(total, np.int64)
    for position in range(total):
        due_K += part_K  # rows owed, times total
        waits = due_K * double >= total
        deadline_K = np.where(waits, (total * (double - 1) - due_K * double) / part_K, np.inf)
        k = int(deadline_K.argmin())
        due_K[k] -= total
        out[position] = source_K[k]
    return out
