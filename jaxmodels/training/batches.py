"""Batches of a pipeline on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxmodels.pipeline import Pipeline


def stack_steps(batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Batches of consecutive steps, stacked on a new first axis; a single one is not copied."""
    if len(batches) == 1:
        return {name: np.asarray(x)[None] for name, x in batches[0].items()}
    return {name: np.stack([b[name] for b in batches]) for name in batches[0]}


def is_bucketed(data: Pipeline) -> bool:
    """Whether the batches have different shapes by design, so that each is a dispatch of its own."""
    return len(data.lengths) > 1


def real_rows(data: Pipeline, step: int) -> np.ndarray:
    """Which rows of a batch are examples and not padding; all, where the pipeline does not say."""
    indices_B = data.indices(step, 0, data.batch)
    return np.ones(data.batch, bool) if indices_B is None else indices_B >= 0


def read_batch(
    data: Pipeline, step: int, check: Callable[[Any, int, int], None] | None = None
) -> dict[str, np.ndarray]:
    """One whole batch. check: called with (batch, step, its first row)."""
    batch = data.rows(step, 0, data.batch)
    if check is not None:
        check(batch, step, 0)
    return batch
