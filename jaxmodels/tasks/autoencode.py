"""Autoencoding: how far an input's reconstruction from its code is from it (Hinton and Salakhutdinov, 2006).

Dimensions: B batch, F inputs, D width of the code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmodels import choices
from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, init_from
from jaxmodels.tasks.requirements import inputs_of, weights

Miss = Literal["cross_entropy", "squared"]


def reconstruction(output_BF: Any, x: jax.Array, miss: Miss) -> dict[str, jax.Array]:
    """The "loss" of a reconstruction, and its "squared_error", both summed over an input's values, B.

    cross_entropy: of values from 0 to 1 and logits, in nats; the squared error is that of their sigmoids.
    """
    choices.check("autoencode", "miss", miss, Miss)
    output_BF, x_BF = output_BF.astype(jnp.float32), x.reshape(x.shape[0], -1).astype(jnp.float32)
    made_BF = jax.nn.sigmoid(output_BF) if miss == "cross_entropy" else output_BF
    squared_B = ((made_BF - x_BF) ** 2).sum(-1)
    if miss == "squared":
        return {"loss": squared_B, "squared_error": squared_B}
    return {"loss": optax.sigmoid_binary_cross_entropy(output_BF, x_BF).sum(-1), "squared_error": squared_B}


def autoencode(model: nn.Module, *, inputs: str = "image", miss: Miss = "cross_entropy") -> Task:
    """The reconstruction's loss, of batches of the input and weight.

    model: one of jaxmodels.models.autoencoder, or any that gives (reconstruction BF, code BD). Cross-entropy
    takes inputs from 0 to 1.
    """
    choices.check("autoencode", "miss", miss, Miss)

    def measure(params, extra, batch, keys_B):
        (output_BF, _), extra = apply(model, params, extra, batch[inputs], keys_B, weight=batch["weight"])
        values = reconstruction(output_BF, batch[inputs], miss)
        return {name: Mean.of(x_B, batch["weight"]) for name, x_B in values.items()}, extra

    def loss(params, extra, batch, keys_B):
        metrics, extra = measure(params, extra, batch, keys_B)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, None)[0]

    def requires(batch, params, extra):
        return {inputs: inputs_of(batch[inputs], None), "weight": weights()}

    return Task(init_from(model, inputs), loss, evaluate, requires=requires)


def coded(model: nn.Module, *, inputs: str = "image") -> Callable[[Any, Any, Any], dict[str, jax.Array]]:
    """(params, extra, batch) to "made" (logits or means BF) and "code" (BD), for Evaluation.predict."""

    def predict(params, extra, batch):
        (made_BF, code_BD), _ = apply(model, params, extra, batch[inputs], None)
        return {"made": made_BF, "code": code_BD}

    return predict
