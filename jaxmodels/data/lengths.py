"""Texts of different lengths in batches of one shape: each is cut or padded to the same number of tokens.

Dimensions: B rows of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from jaxmodels.data.order import Remainder
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


def join(texts: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Texts as the arrays "tokens" and "offsets", for TextPipeline."""
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return {"tokens": np.fromiter((t for text in texts for t in text), np.int32, offsets[-1]), "offsets": offsets}
