"""Clicks and other yes or no: binary cross-entropy of one logit, from categories and numbers.

Dimensions: B examples, F fields, N numbers.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmodels.task import Mean, Requirement, Task
from jaxmodels.tasks.apply import apply, check_outputs
from jaxmodels.tasks.requirements import fields, finite, weights


def clicks(model: Any) -> Task:
    """Binary cross-entropy on batches of "ids" (BF, int), "label" (B, 0 or 1, or a probability) and "weight".

    The model maps ids to a logit (B x 1), has sizes, and takes "numbers" (BN) as numbers_BN where a batch has
    them, as jaxmodels.models.dlrm. Metrics: "loss", and "accuracy" at a probability of one half.
    """

    def options(params: Any, batch: Any) -> dict[str, jax.Array]:
        if "numbers" not in batch:
            return {}
        return {"numbers_BN": batch["numbers"].astype(jax.tree.leaves(params)[0].dtype)}

    def init(key, batch):
        numbers = {"numbers_BN": batch["numbers"]} if "numbers" in batch else {}
        extra = dict(model.init(key, batch["ids"], **numbers))
        return extra.pop("params"), extra

    def measure(logit_B1, batch):
        logit_B = check_outputs(logit_B1, "(N, 1)")[:, 0].astype(jnp.float32)
        label_B = jnp.where(batch["weight"] > 0, batch["label"], 0).astype(jnp.float32)
        values = {
            "loss": optax.sigmoid_binary_cross_entropy(logit_B, label_B),
            "accuracy": (logit_B > 0) == (label_B > 0.5),
        }
        return {name: Mean.of(value_B, batch["weight"]) for name, value_B in values.items()}

    def loss(params, extra, batch, keys_B):
        logit_B1, extra = apply(model, params, extra, batch["ids"], keys_B, **options(params, batch))
        metrics = measure(logit_B1, batch)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(apply(model, params, extra, batch["ids"], None, **options(params, batch))[0], batch)

    def requires(batch, params, extra) -> dict[str, Requirement]:
        label = Requirement("0 or 1, or a probability", "Give 1 for a click", low=0, high=1, shape=())
        return {
            "ids": fields(model.sizes),
            "numbers": finite("the numbers of an example"),
            "label": label._replace(where=("weight",)),
            "weight": weights(),
        }

    return Task(init, loss, evaluate, requires=requires)


def probability(model: Any) -> Any:
    """(params, extra, batch) to the probability of a click, B, for Evaluation.predict."""

    def predict(params, extra, batch):
        numbers = {"numbers_BN": batch["numbers"]} if "numbers" in batch else {}
        return jax.nn.sigmoid(apply(model, params, extra, batch["ids"], None, **numbers)[0][:, 0])

    return predict
