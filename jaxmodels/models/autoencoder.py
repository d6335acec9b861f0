"""Autoencoder of dense layers: an encoder to a small code, and its mirror image.

The hidden layers are logistic, the code is linear, and the outputs are logits, as of Hinton and Salakhutdinov
(2006, doi:10.1126/science.1127647); their layers start from restricted Boltzmann machines, these from random
weights.
Dimensions: B batch, F inputs, H units of a layer, D width of the code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.model import Model


class Autoencoder(Model):
    """Maps inputs, flattened, to (logits or means of their reconstruction BF, code BD)."""

    inputs: int
    hidden: Sequence[int] = (1000, 500, 250)  # of the encoder; the decoder mirrors them
    code: int = 30
    activation: Callable[[jax.Array], jax.Array] = nn.sigmoid
    code_activation: Callable[[jax.Array], jax.Array] | None = None  # None: the code is linear
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    def setup(self):
        """Creates the layers."""
        dense = partial(nn.Dense, dtype=self.dtype)
        self.down = [dense(width) for width in (*self.hidden, self.code)]
        self.up = [dense(width) for width in (*self.hidden[::-1], self.inputs)]

    def __call__(self, x: jax.Array, keys_B: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """(reconstruction BF, code BD). Nothing is random: keys are for callers that pass them."""
        code_BD = self.encode(x)
        return self.decode(code_BD), code_BD

    def encode(self, x: jax.Array) -> jax.Array:
        """The code, BD."""
        x_BH = x.reshape(x.shape[0], -1)
        for layer in self.down[:-1]:
            x_BH = self.activation(layer(x_BH))
        code_BD = self.down[-1](x_BH)
        return code_BD if self.code_activation is None else self.code_activation(code_BD)

    def decode(self, code_BD: jax.Array) -> jax.Array:
        """The reconstruction of a code, BF: logits of values from 0 to 1, or means."""
        x_BH = code_BD
        for layer in self.up[:-1]:
            x_BH = self.activation(layer(x_BH))
        return self.up[-1](x_BH)
