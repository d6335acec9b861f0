"""Denoising autoencoder: the clean input from a damaged one (Vincent et al., 2008, 10.1145/1390156.1390294).

Dimensions: B batch, F inputs.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from jaxmodels.keys import fold
from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply
from jaxmodels.tasks.autoencode import Miss, autoencode, reconstruction


def denoising(
    model: nn.Module,
    *,
    masked: float = 0.25,
    noise: float = 0.0,
    inputs: str = "image",
    miss: Miss = "cross_entropy",
) -> Task:
    """As tasks.autoencode, but in training the model sees a damaged input. Evaluation is of whole ones.

    masked: probability with which each value becomes 0. noise: standard deviation of what is added before.
    """
    if not 0 <= masked < 1 or noise < 0 or masked == noise == 0:
        raise ValueError(
            f"denoising: got masked={masked} and noise={noise}; expected masked from 0 to below 1, noise of "
            "at least 0, and one of them above 0. Give masked=0.25"
        )
    plain = autoencode(model, inputs=inputs, miss=miss)

    def damaged(x: Any, keys_B: Any) -> Any:
        shape = x.shape[1:]
        if noise:
            x += noise * jax.vmap(lambda key: jax.random.normal(key, shape, x.dtype))(fold(keys_B, 1))
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - masked, shape))(fold(keys_B, 0))
        return x * kept

    def loss(params, extra, batch, keys_B):
        x = damaged(batch[inputs], keys_B)
        (output_BF, _), extra = apply(model, params, extra, x, fold(keys_B, 2), weight=batch["weight"])
        values = reconstruction(output_BF, batch[inputs], miss)
        metrics = {name: Mean.of(x_B, batch["weight"]) for name, x_B in values.items()}
        return metrics["loss"], extra, metrics

    return plain._replace(loss=loss)
