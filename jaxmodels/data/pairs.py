"""Pairs of texts in batches of one shape, for models that turn one text into another.

Dimensions: B rows of a batch, S tokens of the source, T of the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from jaxmodels.data.order import Remainder
from jaxmodels.data.pipeline import ArrayPipeline

Pair = tuple[Sequence[int], Sequence[int]]  # tokens of the source and of the target


def pairs(
    open: Callable[[], Iterable[Pair]],
    *,
    source_length: int,
    target_length: int,
    begin: int,
    end: int,
    batch: int,
    seed: int | None = None,
    remainder: Remainder | None = None,
) -> ArrayPipeline:
    """Batches of pairs of texts, padded.

    They hold "source", "source_segments" (int32, BS), "inputs", "targets" (int32, BT) and "weight"
    (float32, BT). open reads the pairs, on first use. The inputs are `begin` and the target, the targets
    are the target and `end`. Longer texts are truncated, so a long target has no `end`. Padding is 0;
    source_segments and weight are 1 for text, 0 for padding.
    """
    if source_length < 1 or target_length < 1:
        raise ValueError(
            f"pairs: got lengths of {source_length} and {target_length} tokens; expected at least 1 each. "
            "Raise them"
        )

    def arrays() -> dict[str, np.ndarray]:
        rows = list(open())
        if not rows:
            raise ValueError("pairs: got none; expected at least one. Look at the files that they are from")
        source, source_segments = _rows([source for source, _ in rows], source_length)
        inputs, _ = _rows([[begin, *target] for _, target in rows], target_length)
        targets, real = _rows([[*target, end] for _, target in rows], target_length)
        return {
            "source": source,
            "source_segments": source_segments,
            "inputs": inputs,
            "targets": targets,
            "weight": real.astype(np.float32),
        }

    int32 = np.dtype(np.int32)
    lengths = {
        "source": source_length,
        "source_segments": source_length,
        "inputs": target_length,
        "targets": target_length,
    }
    return ArrayPipeline(
        arrays,
        batch=batch,
        seed=seed,
        remainder=remainder,
        spec={
            **{name: ((length,), int32) for name, length in lengths.items()},
            "weight": ((target_length,), np.dtype(np.float32)),
        },
    )


def _rows(texts: Sequence[Sequence[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, 1 for text and 0 for padding), each texts x length, int32."""
    tokens = np.zeros((len(texts), length), np.int32)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = text[:length]
    counts = np.array([len(text) for text in texts])
    return tokens, (np.arange(length) < counts[:, None]).astype(np.int32)
