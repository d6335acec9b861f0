"""What one pass over an evaluation's data gives, and the score of all its predictions, on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmodels.experiment import Evaluation
from jaxmodels.parallel import processes
from jaxmodels.parallel.placement import replicated

Show = Callable[[str, "np.ndarray | bytes"], object]


class Collected:
    """What an evaluation's pass over its data has given so far, on the host."""

    def __init__(self) -> None:
        self.total: Any = 0.0  # of packed metrics
        self.predictions: list[Any] = []
        self.batches: list[Any] = []

    def add(self, packed: Any) -> None:
        """Adds packed metrics of a batch, waiting for them."""
        self.total = self.total + np.asarray(packed, np.float64)

    def keep(self, predicted: Any, batch: Any) -> None:
        """Keeps a batch's predictions, and the batch, both without padding, for the score of them all."""
        self.predictions.append(predicted)
        self.batches.append(batch)


def examples(tree: Any, real: np.ndarray) -> Any:
    """The rows that are examples and not padding, as NumPy arrays."""
    return jax.tree.map(lambda x: np.asarray(x)[real], tree)


def score(
    name: str, evaluation: Evaluation, collected: Collected, show: Show | None = None
) -> dict[str, float]:
    """The score of all predictions; the images and sounds that they give are shown."""
    predictions, batches = collected.predictions, collected.batches
    values = evaluation.score(predictions, batches) if evaluation.score is not None else {}
    if evaluation.pictures is not None and show is not None:
        for image, pixels in evaluation.pictures(predictions, batches).items():
            show(f"{name}-{image}", pixels)
    return dict(values)


def predictor(predict: Callable[[Any, Any, Any], Any], mesh: Mesh) -> Callable[[Any, Any, Any], Any]:
    """Compiles (params, extra, batch) to predictions.

    One process gives it the batch on the host. Several give it the inputs on the devices, and each gets all
    predictions.
    """
    if processes.count() == 1:
        return jax.jit(predict)

    def first_of(params, extra, inputs):
        return predict(params, extra, jax.tree.map(lambda x: x[0], inputs))

    return jax.jit(first_of, out_shardings=replicated(mesh))
