"""Neural collaborative filtering: a product of factors beside a perceptron, NeuMF (arXiv:1708.05031).

Dimensions: B batch, D factors, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.model import Model


class NeuMF(Model):
    """Maps pairs of a user and an item to a logit: a dense layer over both parts (equation 12).

    Each part has its own tables (section 3.4). width 0 leaves out the product (the paper's MLP), hidden=()
    the perceptron (GMF).
    """

    users: int
    items: int
    width: int = 8  # of the product's factors
    hidden: Sequence[int] = (32, 16, 8)  # the first is of both vectors together
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    @property
    def sizes(self) -> tuple[int, int]:
        """The numbers of users and of items: each column of a pair is below one."""
        return self.users, self.items

    @nn.compact
    def __call__(self, ids_B2: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Logits, B x 1; keys_B: one random key per example while training."""
        if (not self.width and not self.hidden) or (self.hidden and self.hidden[0] % 2):
            raise ValueError(
                f"NeuMF: got width={self.width} and hidden={tuple(self.hidden)}; expected one of them, and a "
                "first hidden width that two vectors share. Change them."
            )

        def vector(name: str, rows: int, index_B: jax.Array, width: int) -> jax.Array:
            normal = nn.initializers.normal(0.05)
            return nn.Embed(rows, width, embedding_init=normal, dtype=self.dtype, name=name)(index_B)

        user_B, item_B = ids_B2[:, 0], ids_B2[:, 1]
        parts = []
        if self.width:
            user_BD = vector("user_product", self.users, user_B, self.width)
            parts.append(user_BD * vector("item_product", self.items, item_B, self.width))
        if self.hidden:
            half = self.hidden[0] // 2
            vectors = (vector("user", self.users, user_B, half), vector("item", self.items, item_B, half))
            x_BH = jnp.concatenate(vectors, -1)
            for n, width in enumerate(self.hidden[1:]):
                x_BH = nn.relu(nn.Dense(width, dtype=self.dtype, name=f"hidden_{n}")(x_BH))
            parts.append(x_BH)
        return nn.Dense(1, use_bias=False, dtype=self.dtype, name="head")(jnp.concatenate(parts, -1))

    def rules(self):
        """How the parameters are split over a mesh: tables by rows; see jaxmodels.parallel.rules."""
        return ((r"/(user|item)(_product)?/embedding$", (("tensor", 0), None)),)
