"""Contractive autoencoder: a code that changes little with the input (Rifai et al., 2011, ICML).

Dimensions: B batch, F inputs, D width of the code.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply
from jaxmodels.tasks.autoencode import Miss, autoencode, reconstruction


def contractive(
    model: nn.Module, *, penalty: float = 0.1, inputs: str = "image", miss: Miss = "cross_entropy"
) -> Task:
    """The reconstruction's loss + penalty x squared Frobenius norm of the code's Jacobian by the input.

    model: has a method encode. The norm is exact, for any depth of encoder, by one backward pass for each
    unit of the code. evaluate gives the same loss, and "contraction": the squared norm.
    """
    if penalty < 0:
        raise ValueError(f"contractive: got penalty={penalty}; expected at least 0. Give 0.1")
    plain = autoencode(model, inputs=inputs, miss=miss)

    def norm(params: Any, extra: Any, x: jax.Array) -> jax.Array:
        """Squared Frobenius norm for each example, B; an example's code depends on no other's input."""
        x = x.astype(jax.tree.leaves(params)[0].dtype)

        def encode(x: jax.Array) -> Any:
            return model.apply({"params": params, **extra}, x, method="encode")

        code_BD, back = jax.vjp(encode, x)

        def one(d):
            (slope,) = back(jnp.zeros_like(code_BD).at[:, d].set(1))
            return (slope.astype(jnp.float32) ** 2).reshape(x.shape[0], -1).sum(-1)

        return jax.lax.map(one, jnp.arange(code_BD.shape[1])).sum(0)

    def measure(params, extra, batch, keys_B):
        (output_BF, _), after = apply(model, params, extra, batch[inputs], keys_B, weight=batch["weight"])
        values = reconstruction(output_BF, batch[inputs], miss)
        values["contraction"] = norm(params, extra, batch[inputs])
        values["loss"] += penalty * values["contraction"]
        return {name: Mean.of(x_B, batch["weight"]) for name, x_B in values.items()}, after

    def loss(params, extra, batch, keys_B):
        metrics, extra = measure(params, extra, batch, keys_B)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, None)[0]

    return plain._replace(loss=loss, evaluate=evaluate)
