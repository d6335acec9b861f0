"""DeepFM: a factorization machine and a perceptron over the same vectors (arXiv:1703.04247).

Dimensions: B batch, F fields, N numbers, D width, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model


class DeepFM(Model):
    """Maps categories, and numbers, to the logit of a click: the sum of both parts (equation 1).

    A number is a field of its own, whose vector and weight are multiplied by it.
    """

    sizes: Sequence[int]  # categories of each field
    width: int = 10
    hidden: Sequence[int] = (400, 400, 400)
    dropout: float = 0.0
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    @nn.compact
    def __call__(
        self, ids_BF: jax.Array, keys_B: jax.Array | None = None, numbers_BN: jax.Array | None = None
    ) -> jax.Array:
        """Logits, B x 1; keys_B: one random key per example while training."""
        normal, zeros = nn.initializers.normal(0.05), nn.initializers.zeros
        rows = sum(self.sizes)
        row_BF = ids_BF + np.cumsum([0, *self.sizes[:-1]], dtype=np.int32)
        v_BFD = nn.Embed(rows, self.width, embedding_init=normal, dtype=self.dtype, name="factors")(row_BF)
        w_BF1 = nn.Embed(rows, 1, embedding_init=zeros, dtype=self.dtype, name="linear")(row_BF)
        if numbers_BN is not None:
            N = numbers_BN.shape[1]
            x_BN1 = numbers_BN.astype(v_BFD.dtype)[..., None]
            factors_ND = self.param("number_factors", normal, (N, self.width))
            linear_N1 = self.param("number_linear", zeros, (N, 1))
            v_BFD = jnp.concatenate([v_BFD, x_BN1 * factors_ND.astype(v_BFD.dtype)], 1)
            w_BF1 = jnp.concatenate([w_BF1, x_BN1 * linear_N1.astype(v_BFD.dtype)], 1)
        sum_BD = v_BFD.sum(1)
        pairs_B = jnp.einsum("BD,BD->B", sum_BD, sum_BD) - jnp.einsum("BFD,BFD->B", v_BFD, v_BFD)
        x_BH = v_BFD.reshape(v_BFD.shape[0], -1)
        for n, width in enumerate(self.hidden):
            x_BH = nn.relu(nn.Dense(width, dtype=self.dtype, name=f"hidden_{n}")(x_BH))
            x_BH = dropout(x_BH, self.dropout, fold(keys_B, n))
        deep_B1 = nn.Dense(1, dtype=self.dtype, name="head")(x_BH)
        return deep_B1 + w_BF1.sum(1) + 0.5 * pairs_B[:, None]

    def rules(self):
        """How the parameters are split over a mesh: tables by rows; see jaxmodels.parallel.rules."""
        return ((r"/(factors|linear)/embedding$", (("tensor", 0), None)),)
