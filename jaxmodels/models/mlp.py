"""Multilayer perceptron (Rumelhart, Hinton and Williams, 1986).

Dimensions: B batch, F features, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model


class MLP(Model):
    """Dense layers with an activation between them; any axes after the first are flattened."""

    hidden: Sequence[int]
    outputs: int
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    dropout: float = 0.0
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def __call__(self, x_BF: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Outputs of x; keys_B: one random key per example while training."""
        x_BF = x_BF.reshape(x_BF.shape[0], -1)
        for i, width in enumerate(self.hidden):
            x_BF = self.activation(nn.Dense(width, dtype=self.dtype, name=f"hidden_{i}")(x_BF))
            x_BF = dropout(x_BF, self.dropout, fold(keys_B, i))
        return nn.Dense(self.outputs, dtype=self.dtype, name="head")(x_BF)
