"""Texts of different lengths in batches: all of one shape, or each batch as long as its texts need.

Dimensions: B rows of a batch, T tokens, P batches of a pool, N their rows, X texts of an example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxmodels import choices
from jaxmodels.data.order import Remainder, mix, permute
from jaxmodels.data.pipeline import ArrayPipeline, Arrays, as_int32, is_mapped
from jaxmodels.pipeline import Pipeline, Spec


class TextPipeline(ArrayPipeline):
    """Texts with labels, or with any other arrays that have one row for each text.

    open: the arrays, or a function that reads them: "tokens" (of all texts in one array, any integer type),
        "offsets" (the start of each text and, last, the end of the last one), and others such as "label".
        join() makes the first two.
    length: tokens T of a row; a longer text is truncated.
    spec: shapes and types of the other arrays, so that building needs no data; read from the data where
        absent.

    A batch holds "inputs" (int32, BT; 0 for padding), "segments" (int32, BT; 1 for text, 0 for padding), the
    other arrays and "weight" (float32, B). It is a function of seed and step alone, and may be gathered on
    the device.
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
            raise ValueError(
                f"TextPipeline: got length={length}; expected at least 1 token in a row. Raise it"
            )
        text = {"inputs": ((length,), np.dtype(np.int32)), "segments": ((length,), np.dtype(np.int32))}
        super().__init__(
            open, batch=batch, seed=seed, remainder=remainder, spec=None if spec is None else {**text, **spec}
        )
        self.length = length

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, read once."""
        arrays = self._opened()
        tokens, offsets = arrays["tokens"], arrays["offsets"]
        if not len(tokens):
            raise ValueError(
                "the texts: got no tokens; expected at least one. Look at the file that they are from"
            )
        if offsets[0] != 0 or offsets[-1] != len(tokens) or (np.diff(offsets) < 0).any():
            raise ValueError(
                f"the offsets of the texts: got {offsets[0]} to {offsets[-1]}; expected numbers that never "
                f"fall, from 0 to {len(tokens)}, the number of tokens. Make both with join()"
            )
        lengths = {name: len(x) for name, x in arrays.items() if name not in ("tokens", "offsets")}
        if {*lengths.values()} - {len(offsets) - 1}:
            raise ValueError(
                f"the texts: got {len(offsets) - 1} of them and arrays of {lengths} rows; expected one row "
                "for each text. Look at how they were made"
            )
        return arrays

    def _count(self) -> int:
        return len(self.arrays["offsets"]) - 1

    def columns(self) -> dict[str, np.ndarray]:
        """The arrays in memory whose rows batches hold unchanged; a row of "inputs" is one token."""
        tokens = self.arrays["tokens"]
        others = {name: x for name, x in self.arrays.items() if name not in ("tokens", "offsets")}
        others = others or {"weight": np.ones(self._count(), np.float32)}
        return {**({} if is_mapped(tokens) else {"inputs": tokens}), **self._columns(others)}

    def gather(self, arrays: Mapping[str, Any], indices_B: Any) -> dict[str, Any]:
        """The texts at these indices; works on NumPy and on JAX arrays."""
        tokens, offsets = arrays["tokens"], arrays["offsets"]
        others = {name: x for name, x in arrays.items() if name not in ("tokens", "offsets")}
        position_BT = offsets[indices_B][:, None] + np.arange(self.length, dtype=np.int32)
        real_BT = (position_BT < offsets[indices_B + 1][:, None]) & (indices_B >= 0)[:, None]
        inputs_BT = as_int32(tokens[position_BT.clip(0, len(tokens) - 1)]) * real_BT
        return {
            "inputs": inputs_BT,
            "segments": real_BT.astype(np.int32),
            **super().gather(others, indices_B),
        }

    def describe(self) -> str:
        """The data and its batches, in one phrase."""
        lengths = np.diff(self.arrays["offsets"])
        truncated = (lengths > self.length).mean()
        texts = f"texts of {lengths.min():,} to {lengths.max():,} tokens"
        return f"{texts}, {truncated:.1%} truncated to {self.length}: {super().describe()}"


class Buckets(Pipeline):
    """The examples of a pipeline in batches of similar lengths, each padded to the smallest of `lengths`.

    A pool of P batches is taken in the pipeline's order, sorted by length and divided into batches, which are
    shuffled where the pipeline has a seed. So a pass has the same examples as without buckets, and each batch
    is a function of seed and step. The step is compiled for each length, and --steps-per-dispatch is 1.

    data: a TextPipeline, or pairs of texts, without augmentation; or, with padded="before", windows with
        "weight" (BT) that end in what is newest, as those of data/interaction_splits.py.
    lengths: of a batch's rows, rising; for pairs of texts each is a pair, for source and target, or one
        number for both (at most the pipeline's own). The last is the pipeline's own length.
    pool: batches that are sorted together.
    """

    spec: Spec

    def __init__(
        self,
        data: ArrayPipeline,
        *,
        lengths: Sequence[int | tuple[int, int]],
        pool: int = 64,
        padded: Literal["after", "before"] = "after",
    ):
        choices.check("buckets", "padded", padded, ("after", "before"))
        self._texts = _texts(data.spec) if padded == "after" else _windows(data.spec)
        most = tuple(data.spec[text.marks][0][0] for text in self._texts)
        self._lengths = [_of_each(length, most) for length in lengths]
        rising = all(
            a != b and all(x <= y for x, y in zip(a, b, strict=True)) for a, b in pairwise(self._lengths)
        )
        valid = bool(lengths) and rising and self._lengths[-1] == most and min(map(min, self._lengths)) >= 1
        if not valid or pool < 1:
            own = most[0] if len(most) == 1 else most
            raise ValueError(
                f"buckets: got lengths={tuple(lengths)} and pool={pool}; expected lengths that rise to "
                f"{own}, the pipeline's, and a pool of at least 1 batch. Change them"
            )
        self.data, self.lengths, self.pool = data, tuple(lengths), pool
        self.batch, self.spec = data.batch, data.spec
        self._last: tuple[int, np.ndarray, np.ndarray] = (-1, np.empty(0), np.empty(0))

    @cached_property
    def steps(self) -> int:
        """Batches in one pass."""
        return self.data.steps

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of the data, of full length."""
        return self.data.columns()

    def indices(self, step: int, start: int, stop: int) -> np.ndarray:
        """The examples in rows start to stop of batch `step`; -1 is padding."""
        return self._of(step)[0][start:stop]

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows start to stop of batch `step`, as long as the whole batch needs."""
        indices_B, number = self._of(step)
        batch = self.data.gather(self.data.arrays, indices_B[start:stop])
        for text, length in zip(self._texts, self._lengths[number], strict=True):
            kept = slice(-length, None) if text.ends_last else slice(length)
            batch.update({name: batch[name][:, kept] for name in text.arrays})
        return batch

    def _of(self, step: int) -> tuple[np.ndarray, int]:
        """The examples of a batch, and the index of its length in `lengths`."""
        epoch, batch = divmod(step, self.steps)
        pool, n = divmod(batch, self.pool)
        first = epoch * self.steps + pool * self.pool
        cached, indices_PB, number_P = self._last  # read once: other threads may replace it
        if cached != first:
            indices_PB, number_P = self._sorted(first, min(self.pool, self.steps - pool * self.pool))
            self._last = first, indices_PB, number_P
        return indices_PB[n], int(number_P[n])

    def _sorted(self, first: int, P: int) -> tuple[np.ndarray, np.ndarray]:
        """The examples of P batches from `first` on, PB, and the index of each batch's length, P."""
        data = self.data
        indices = np.concatenate([data.indices(n, 0, self.batch) for n in range(first, first + P)])
        batch = data.gather(data.arrays, indices)
        ends_NX = np.stack([text.length(batch) for text in self._texts], -1)
        number_N = (
            (ends_NX[:, None] > np.array(self._lengths)).any(-1).sum(1)
        )  # of the first length that holds it
        by_length = np.lexsort((ends_NX.sum(1), number_N)).reshape(P, self.batch)
        if data.seed is not None:
            by_length = by_length[permute(np.arange(P), P, int(mix(np.uint64((first ^ data.seed) % 2**64))))]
        return indices[by_length], number_N[by_length].max(1)

    def fingerprint(self) -> str:
        """Changes when an example or the order of the examples does; see data/fingerprint.py."""
        return self.data.fingerprint()

    def describe(self) -> str:
        """The data and its batches, in one phrase."""
        lengths = ", ".join(map(str, self.lengths))
        return f"{self.data.describe()}, each as long as the smallest of {lengths} that holds it"


class _Text(NamedTuple):
    """One text of an example: the array that is not 0 where there is text, and all arrays of its length."""

    marks: str
    arrays: tuple[str, ...]
    ends_last: bool = False  # whether padding comes before it

    def length(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """The tokens of each row, with padding between them."""
        real_NT = batch[self.marks] != 0
        return _ends(real_NT[:, ::-1] if self.ends_last else real_NT)


def _windows(spec: Spec) -> tuple[_Text, ...]:
    """The windows of an example, which end at their last position."""
    if "weight" not in spec or len(spec["weight"][0]) != 1:
        raise ValueError(
            f'buckets: got padded="before" and batches of {", ".join(spec)}; expected "weight", a number for '
            "each position. Make them with next_items of data/interaction_splits.py"
        )
    length = spec["weight"][0]
    return (_Text("weight", tuple(name for name, (shape, _) in spec.items() if shape == length), True),)


def _texts(spec: Spec) -> tuple[_Text, ...]:
    """The texts of an example, by the names in batches of TextPipeline and pairs()."""
    if "source_segments" in spec:
        source = _Text("source_segments", ("source", "source_segments"))
        return source, _Text("weight", ("inputs", "targets", "weight"))
    if "segments" not in spec:
        raise ValueError(
            f'buckets: got batches of {", ".join(spec)}; expected "segments", 1 where there is text, or the '
            "arrays of "
            "pairs(). Use TextPipeline or pairs()"
        )
    length = spec["segments"][0][:1]
    return (_Text("segments", tuple(name for name, (shape, _) in spec.items() if shape[:1] == length)),)


def _of_each(length: int | tuple[int, int], most: tuple[int, ...]) -> tuple[int, ...]:
    """A length for each text."""
    if not isinstance(length, int):
        return tuple(length)
    return tuple(min(length, x) for x in most) if len(most) > 1 else (length,)


def _ends(real_NT: np.ndarray) -> np.ndarray:
    """The end of the last token of each row, 0 where there is none."""
    return np.where(real_NT.any(1), real_NT.shape[1] - real_NT[:, ::-1].argmax(1), 0)


def join(texts: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Texts as the arrays "tokens" and "offsets", for TextPipeline."""
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return {
        "tokens": np.fromiter((t for text in texts for t in text), np.int32, offsets[-1]),
        "offsets": offsets,
    }
