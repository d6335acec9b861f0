"""Texts of different lengths in batches: all of one shape, or each batch as long as its texts need.

Dimensions: B rows of a batch, T tokens, P batches of a pool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from jaxmodels.data.order import Remainder, mix, permute
from jaxmodels.data.pipeline import ArrayPipeline, Arrays, Spec


class TextPipeline(ArrayPipeline):
    """Texts with labels, or with anything else of which there is one row for each text.

    open: the arrays, or a function that reads them: "tokens" (those of all texts in a row, any integer type), "offsets"
    (where each text starts, and at last where the last one ends), and others such as "label". join() makes the first two.
    length: tokens T of a row; of a longer text the first T. spec: shapes and types of the other arrays, so that building
    needs no data; read from the data where absent.

    A batch holds "inputs" (int32, BT; 0 beyond the text), "segments" (int32, BT; 1 where there is text, 0 beyond it), the
    other arrays and "weight" (float32, B). It is a function of seed and step alone, and may be gathered on the device.
    """

    def __init__(
        self,
        open: Arrays | Callable[[], Arrays],
        *,
        length: int,
        batch: int,
        seed: int | None = None,
        remainder: Remainder | None = None,
        spec: Spec | None = None,
    ):
        if length < 1:
            raise ValueError(f"length is {length}; wanted at least 1 token in a row: raise it")
        text = {"inputs": ((length,), np.dtype(np.int32)), "segments": ((length,), np.dtype(np.int32))}
        super().__init__(open, batch=batch, seed=seed, remainder=remainder, spec=None if spec is None else {**text, **spec})
        self.length = length

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, read once."""
        arrays = {name: np.asarray(x) for name, x in (self._open() if callable(self._open) else self._open).items()}
        tokens, offsets = arrays["tokens"], arrays["offsets"]
        if not len(tokens):
            raise ValueError("the texts have no tokens; wanted at least one: look at the file that they come from")
        if offsets[0] != 0 or offsets[-1] != len(tokens) or (np.diff(offsets) < 0).any():
            raise ValueError(
                f"the offsets of the texts go from {offsets[0]} to {offsets[-1]}; wanted numbers that never fall, from 0 to "
                f"{len(tokens)}, the number of tokens: make both with join()"
            )
        lengths = {name: len(x) for name, x in arrays.items() if name not in ("tokens", "offsets")}
        if {*lengths.values()} - {len(offsets) - 1}:
            raise ValueError(
                f"there are {len(offsets) - 1} texts and arrays of {lengths} rows; wanted one row for each text: look "
                "at how they were made"
            )
        return arrays

    def _count(self) -> int:
        return len(self.arrays["offsets"]) - 1

    def gather(self, arrays: Mapping[str, Any], indices_B: Any) -> dict[str, Any]:
        """The texts at these indices; works on NumPy and on JAX arrays."""
        tokens, offsets = arrays["tokens"], arrays["offsets"]
        others = {name: x for name, x in arrays.items() if name not in ("tokens", "offsets")}
        place_BT = offsets[indices_B][:, None] + np.arange(self.length, dtype=np.int32)
        real_BT = (place_BT < offsets[indices_B + 1][:, None]) & (indices_B >= 0)[:, None]
        inputs_BT = tokens[place_BT.clip(0, len(tokens) - 1)].astype(np.int32) * real_BT
        return {"inputs": inputs_BT, "segments": real_BT.astype(np.int32), **super().gather(others, indices_B)}

    def describe(self) -> str:
        """The data and its batches, in one phrase."""
        lengths = np.diff(self.arrays["offsets"])
        cut = (lengths > self.length).mean()
        return (
            f"texts of {lengths.min():,} to {lengths.max():,} tokens, {cut:.1%} cut to {self.length}: {super().describe()}"
        )


class Buckets:
    """The examples of a pipeline in batches of similar length, each as long as the smallest of `lengths` that holds it.

    A pool of P batches is taken in the pipeline's order, sorted by length and cut into batches, which come in a random order
    where the pipeline has a seed. So a pass has the same examples as without buckets, and the whole is a function of seed
    and step. The step is compiled for each length, and --steps-per-dispatch is 1.

    data: rows are filled up after the places where "segments" (BT) is not 0. Its T has to be the last of lengths; arrays
    whose second axis is T are cut. It may not augment.
    """

    def __init__(self, data: ArrayPipeline, *, lengths: Sequence[int], pool: int = 64):
        T = data.spec["segments"][0][0]
        if list(lengths) != sorted(set(lengths)) or not lengths or lengths[-1] != T or pool < 1:
            raise ValueError(
                f"buckets: came lengths={tuple(lengths)} and pool={pool}; wanted lengths that rise to {T}, the pipeline's, "
                "and a pool of at least 1 batch: change them"
            )
        self.data, self.lengths, self.pool = data, tuple(lengths), pool
        self.batch, self.spec = data.batch, data.spec
        self._last: tuple[int, np.ndarray, np.ndarray] = (-1, np.empty(0), np.empty(0))

    @property
    def steps(self) -> int:
        """Batches in one pass."""
        return self.data.steps

    def indices(self, step: int, start: int, stop: int) -> np.ndarray:
        """The examples in rows start to stop of batch `step`; -1 is padding."""
        return self._of(step)[0][start:stop]

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows start to stop of batch `step`, as long as the whole batch needs."""
        indices_B, length = self._of(step)
        batch = self.data.gather(self.data.arrays, indices_B[start:stop])
        long = {name for name, (shape, _) in self.spec.items() if shape[:1] == (self.lengths[-1],)}
        return {name: x[:, :length] if name in long else x for name, x in batch.items()}

    def _of(self, step: int) -> tuple[np.ndarray, int]:
        """The examples of a batch, and its length."""
        turn, within = divmod(step, self.steps)
        pool, n = divmod(within, self.pool)
        first = turn * self.steps + pool * self.pool
        known, indices_PB, length_P = self._last  # read once: other threads may be elsewhere
        if known != first:
            indices_PB, length_P = self._sorted(first, min(self.pool, self.steps - pool * self.pool))
            self._last = first, indices_PB, length_P
        return indices_PB[n], int(length_P[n])

    def _sorted(self, first: int, P: int) -> tuple[np.ndarray, np.ndarray]:
        """The examples of P batches from `first` on, PB, and the batches' lengths."""
        data, T = self.data, self.lengths[-1]
        indices = np.concatenate([data.indices(n, 0, self.batch) for n in range(first, first + P)])
        real_NT = data.gather(data.arrays, indices)["segments"] != 0
        ends_N = np.where(real_NT.any(1), T - real_NT[:, ::-1].argmax(1), 0)
        by_length = np.argsort(ends_N, kind="stable").reshape(P, self.batch)
        if data.seed is not None:
            by_length = by_length[permute(np.arange(P), P, int(mix(np.uint64((first ^ data.seed) % 2**64))))]
        return indices[by_length], np.asarray(self.lengths)[np.searchsorted(self.lengths, ends_N[by_length].max(1))]

    def describe(self) -> str:
        """The data and its batches, in one phrase."""
        return f"{self.data.describe()}, each as long as the smallest of {', '.join(map(str, self.lengths))} that holds it"


def join(texts: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Texts as the arrays "tokens" and "offsets", for TextPipeline."""
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return {"tokens": np.fromiter((t for text in texts for t in text), np.int32, offsets[-1]), "offsets": offsets}
