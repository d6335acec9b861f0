"""The perceptron criterion, and Rosenblatt's rule: a mistaken example is added to the weights.

Sources: Rosenblatt (1958), doi:10.1037/h0042519; Novikoff (1962) for the bound: on examples of a length of at
most R, a constant feature of 1 among them, that some unit vector separates by g, the rule makes at most
(R / g)^2 mistakes, in any order and number of passes. Dimensions: B batch.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, init_from
from jaxmodels.tasks.requirements import finite, labels, weights


def perceptron(model: nn.Module, *, inputs: str = "features") -> Task:
    """max(0, -y score), y = -1 or 1 for the labels 0 and 1, of batches of features, label and weight.

    model: one of jaxmodels.models.perceptron, or any that gives a score for each example. With
    online_step(perceptron_rule(model)) of jaxmodels.training.online_step it learns by Rosenblatt's rule.
    """

    def measure(params, extra, batch, keys_B):
        score_B, _ = apply(model, params, extra, batch[inputs], keys_B)
        sign_B = 2.0 * batch["label"] - 1
        score_B = score_B.astype(jnp.float32)
        values = {
            "loss": jnp.maximum(0, -sign_B * score_B),
            "accuracy": (score_B > 0) == (batch["label"] > 0),
        }
        return {name: Mean.of(x_B, batch["weight"]) for name, x_B in values.items()}

    def loss(params, extra, batch, keys_B):
        metrics = measure(params, extra, batch, keys_B)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, None)

    def requires(batch, params, extra):
        return {inputs: finite("numbers"), "label": labels(2), "weight": weights()}

    return Task(init_from(model, inputs), loss, evaluate, requires=requires)


def perceptron_rule(model: nn.Module, *, inputs: str = "features") -> Any:
    """For online_step: y x where y score <= 0, and nothing elsewhere; "mistakes" is the share of those."""

    def rule(params: Any, row: Any) -> tuple[Any, dict[str, jax.Array]]:
        sign = 2.0 * row["label"] - 1

        def signed(params):
            score_B: Any = model.apply({"params": params}, row[inputs][None])
            return sign * score_B[0]

        score, direction = jax.value_and_grad(signed)(params)
        mistaken = score <= 0
        direction = jax.tree.map(lambda d: jnp.where(mistaken, d, 0), direction)
        return direction, {"loss": jnp.maximum(0, -score), "mistakes": mistaken.astype(jnp.float32)}

    return rule
