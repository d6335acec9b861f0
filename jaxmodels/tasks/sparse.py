"""Sparse autoencoder: each unit of the code is to be on rarely (Ng, CS294A notes, 2011; Lee et al., 2007).

Dimensions: B batch, F inputs, D width of the code.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply
from jaxmodels.tasks.autoencode import Miss, autoencode, reconstruction


def sparse(
    model: nn.Module,
    *,
    rate: float = 0.05,
    penalty: float = 1.0,
    inputs: str = "image",
    miss: Miss = "cross_entropy",
) -> Task:
    """The reconstruction's loss + penalty x sum over the code's units of KL(rate || activity).

    model: its code is from 0 to 1, by code_activation=nn.sigmoid. The notes take a unit's activity as its
    mean over all examples; here it is taken for each example, which bounds that from above (the divergence
    is convex) and is a mean over examples, so that it adds over batches and devices. evaluate gives the same
    loss, and "activity": the mean of the code.
    """
    if not 0 < rate < 1 or penalty < 0:
        raise ValueError(
            f"sparse: got rate={rate} and penalty={penalty}; expected a rate between 0 and 1 and a "
            "penalty of at least 0. Give rate=0.05"
        )
    plain = autoencode(model, inputs=inputs, miss=miss)

    def measure(params, extra, batch, keys_B):
        (output_BF, code_BD), extra = apply(
            model, params, extra, batch[inputs], keys_B, weight=batch["weight"]
        )
        code_BD = code_BD.astype(jnp.float32)
        inside_BD = code_BD.clip(1e-6, 1 - 1e-6)
        kl_BD = rate * jnp.log(rate / inside_BD) + (1 - rate) * jnp.log((1 - rate) / (1 - inside_BD))
        values = reconstruction(output_BF, batch[inputs], miss)
        values |= {"divergence": kl_BD.sum(-1), "activity": code_BD.mean(-1)}
        values["loss"] += penalty * values["divergence"]
        return {name: Mean.of(x_B, batch["weight"]) for name, x_B in values.items()}, extra

    def loss(params, extra, batch, keys_B):
        metrics, extra = measure(params, extra, batch, keys_B)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, None)[0]

    return plain._replace(loss=loss, evaluate=evaluate)
