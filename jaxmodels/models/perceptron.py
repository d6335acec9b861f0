"""One linear unit: the perceptron (Rosenblatt, 1958) or Adaline (Widrow and Hoff, 1960), as it is trained.

Dimensions: B batch, F features.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.model import Model


class Perceptron(Model):
    """Maps features to one score; above 0 means class 1, else class 0. It begins at zero."""

    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def __call__(self, x_BF: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Scores, B. Nothing is random: keys are for callers that pass them."""
        x_BF = x_BF.reshape(x_BF.shape[0], -1)
        unit = nn.Dense(1, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="unit")
        return unit(x_BF)[:, 0]
