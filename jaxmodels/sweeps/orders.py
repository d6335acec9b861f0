"""Batches of members whose data differs only in its order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxmodels.experiment import Experiment
from jaxmodels.pipeline import Pipeline, Spec
from jaxmodels.sweeps.grouping import same
from jaxmodels.training.batches import read_batch, stack_steps
from jaxmodels.training.check_batches import Checker


def distinct(pipelines: Sequence[Pipeline]) -> tuple[list[Pipeline], list[int]]:
    """(the pipelines that differ, for each pipeline its index among these)."""
    kept: list[Pipeline] = []
    which = []
    for data in pipelines:
        index = next((i for i, other in enumerate(kept) if same(data, other)), None)
        if index is None:
            index = len(kept)
            kept.append(data)
        which.append(index)
    return kept, which


class Orders(Pipeline):
    """The batches of several pipelines as one pipeline, whose examples are the batches, one of each pipeline.

    checkers: of each pipeline.
    """

    steps: int
    spec: Spec

    def __init__(self, pipelines: Sequence[Pipeline], checkers: Sequence[Checker | None]):
        self._pipelines, self._checkers = pipelines, checkers
        self.steps, self.spec = pipelines[0].steps, pipelines[0].spec
        self.batch = len(pipelines)

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Full batches of the pipelines start to stop."""
        pairs = zip(self._pipelines[start:stop], self._checkers[start:stop], strict=True)
        batches = [read_batch(data, step, checker) for data, checker in pairs]
        return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


class TrialBatches:
    """Batches of the first steps, in the members' own data orders, for timing programs."""

    def __init__(self, experiments: Sequence[Experiment]):
        self.orders, self._which = distinct([e.train for e in experiments])

    def __call__(self, size: int, k: int) -> tuple[Any, np.ndarray]:
        """(batches of k steps, for each of the first `size` members the index of its order)."""
        orders = Orders(self.orders, [None] * len(self.orders))
        batches = stack_steps([orders.rows(n, 0, orders.batch) for n in range(k)])
        return jax.device_put(batches), np.asarray(self._which[:size], np.int32)
