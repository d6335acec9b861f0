"""DLRM: deep learning recommendation model for numbers and categories (arXiv:1906.00091).

    numbers ──bottom network──► vector ─┐
    categories ──tables──► vectors ─────┴─ products of pairs ──with the first vector──► top network ──► logit

Dimensions: B batch, N numbers, F fields, V the F + 1 vectors, D width, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.layers.model import Model


class DLRM(Model):
    """Maps categories and numbers to the logit of a click."""

    sizes: Sequence[int]  # categories of each field
    width: int = 16  # of every vector
    bottom: Sequence[int] = (64, 32)  # hidden units of the numbers' network, which ends in the width
    top: Sequence[int] = (64, 32)
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    @nn.compact
    def __call__(
        self, ids_BF: jax.Array, keys_B: jax.Array | None = None, numbers_BN: jax.Array | None = None
    ) -> jax.Array:
        """Logits, B x 1. Without numbers, the pairs are those of categories alone."""

        def dense(x, widths, name):
            for n, width in enumerate(widths):
                x = nn.relu(nn.Dense(width, dtype=self.dtype, name=f"{name}_{n}")(x))
            return x

        vectors = []
        for f, size in enumerate(self.sizes):
            init = _within(size**-0.5)  # as in the authors' code
            table = nn.Embed(size, self.width, embedding_init=init, dtype=self.dtype, name=f"table_{f}")
            vectors.append(table(ids_BF[:, f]))
        own = []
        if numbers_BN is not None:
            number_BD = dense(numbers_BN, (*self.bottom, self.width), "bottom")
            vectors, own = [number_BD, *vectors], [number_BD]
        x_BVD = jnp.stack(vectors, 1)
        product_BVV = jnp.einsum("BVD,BWD->BVW", x_BVD, x_BVD)
        row, column = np.tril_indices(len(vectors), -1)
        x_BP = jnp.concatenate([*own, product_BVV[:, row, column]], -1)
        return nn.Dense(1, dtype=self.dtype, name="head")(dense(x_BP, self.top, "top"))

    def rules(self):
        """How the parameters are split over a mesh: tables by rows; see jaxmodels.parallel.rules."""
        return ((r"/table_\d+/embedding$", (("tensor", 0), None)),)


def _within(bound: float) -> nn.initializers.Initializer:
    """Uniform from -bound to bound."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
