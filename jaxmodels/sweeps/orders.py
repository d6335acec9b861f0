"""The batches of members whose data differ in their order alone."""

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
    """(pipelines that differ, which of them each one is)."""
    kept: list[Pipeline] = []
    which = []
    for data in pipelines:
        at = next((i for i, other in enumerate(kept) if same(data, other)), None)
        if at is None:
            at = len(kept)
            kept.append(data)
        which.append(at)
    return kept, which


class Orders(Pipeline):
    """The batches of several pipelines, on a first axis of as many, as one pipeline for a feed; looks: what checks each."""

    steps: int
    spec: Spec

    def __init__(self, of: Sequence[Pipeline], looks: Sequence[Checker | None]):
        self._looks, self._of, self.steps, self.spec = looks, of, of[0].steps, of[0].spec
        self.batch = len(of)  # what a feed takes for examples

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Whole batches of the pipelines start to stop."""
        pairs = zip(self._of[start:stop], self._looks[start:stop], strict=True)
        read = [read_batch(data, step, look) for data, look in pairs]
        return {name: np.stack([batch[name] for batch in read]) for name in read[0]}


class Trial:
    """The batches of the first steps, of all data orders as a run has them: what programs are tried with."""

    def __init__(self, experiments: Sequence[Experiment]):
        self.orders, self._which = distinct([e.train for e in experiments])

    def __call__(self, size: int, k: int) -> tuple[Any, np.ndarray]:
        """(batches of k steps, which of the orders is each one's of the first `size` members)."""
        of = Orders(self.orders, [None] * len(self.orders))
        read = stack_steps([of.rows(n, 0, of.batch) for n in range(k)])
        return jax.device_put(read), np.asarray(self._which[:size], np.int32)
