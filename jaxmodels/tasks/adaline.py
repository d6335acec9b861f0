"""Adaline: a linear unit's squared error before its threshold, and the rule of Widrow and Hoff.

Source: Widrow and Hoff (1960), Adaptive switching circuits. Dimensions: B batch.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, init_from
from jaxmodels.tasks.requirements import finite, labels, weights


def adaline(model: nn.Module, *, inputs: str = "features") -> Task:
    """(y - score)^2 / 2, y = -1 or 1 for the labels 0 and 1, of batches of features, label and weight.

    model: as of tasks.perceptron. With online_step(widrow_hoff(model)) it learns example by example; by the
    common step, from means over batches. Both go to the least squares; neither stops where all is right.
    """

    def measure(params, extra, batch, keys_B):
        score_B, _ = apply(model, params, extra, batch[inputs], keys_B)
        sign_B = 2.0 * batch["label"] - 1
        score_B = score_B.astype(jnp.float32)
        values = {"loss": (sign_B - score_B) ** 2 / 2, "accuracy": (score_B > 0) == (batch["label"] > 0)}
        return {name: Mean.of(x_B, batch["weight"]) for name, x_B in values.items()}

    def loss(params, extra, batch, keys_B):
        metrics = measure(params, extra, batch, keys_B)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, None)

    def requires(batch, params, extra):
        return {inputs: finite("numbers"), "label": labels(2), "weight": weights()}

    return Task(init_from(model, inputs), loss, evaluate, requires=requires)


def widrow_hoff(model: nn.Module, *, inputs: str = "features") -> Any:
    """For online_step: (y - score) x, least mean squares; "mistakes" is the share of y score <= 0."""

    def rule(params: Any, row: Any) -> tuple[Any, dict[str, jax.Array]]:
        sign = 2.0 * row["label"] - 1

        def score(params):
            score_B: Any = model.apply({"params": params}, row[inputs][None])
            return score_B[0]

        value, x = jax.value_and_grad(score)(params)
        direction = jax.tree.map(lambda x: (sign - value) * x, x)
        mistaken = (sign * value <= 0).astype(jnp.float32)
        return direction, {"loss": (sign - value) ** 2 / 2, "mistakes": mistaken}

    return rule
