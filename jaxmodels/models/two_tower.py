"""Two towers: a network of users and one of items, whose vectors' product is the score.

Covington et al., RecSys 2016; Yi et al., RecSys 2019. Dimensions: B batch, D width.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.dropout import fold
from jaxmodels.layers.model import Model


class Tower(Model):
    """A category's vector, and dense layers after it."""

    rows: int  # of the table: each category is below it
    width: int
    hidden: tuple[int, ...] = ()
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    @nn.compact
    def __call__(self, id_B: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """The vectors, B x width."""
        first = self.hidden[0] if self.hidden else self.width
        x_BD = nn.Embed(self.rows, first, dtype=self.dtype, name="embed")(id_B)
        for n, width in enumerate(self.hidden[1:]):
            x_BD = nn.relu(nn.Dense(width, dtype=self.dtype, name=f"hidden_{n}")(x_BD))
        return nn.Dense(self.width, dtype=self.dtype, name="head")(x_BD) if self.hidden else x_BD


class TwoTower(Model):
    """Maps users and items to vectors of length 1, whose product over a temperature is the score.

    user, item: any modules of (inputs, keys_B) to B x D.
    """

    user: nn.Module
    item: nn.Module
    temperature: float = 0.1

    def __call__(self, user: Any, item: Any, keys_B: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """(vectors of users, of items), both BD; keys_B: one random key per example while training."""
        return self.users(user, keys_B), self.items(item, fold(keys_B, 1))

    def users(self, user: Any, keys_B: jax.Array | None = None) -> jax.Array:
        """The users' vectors, divided by the temperature."""
        x_BD = _normalised(self.user(user, keys_B))
        return x_BD / jnp.asarray(self.temperature, x_BD.dtype)

    def items(self, item: Any, keys_B: jax.Array | None = None) -> jax.Array:
        """The items' vectors, of length 1."""
        return _normalised(self.item(item, keys_B))

    def rules(self):
        """How the parameters are split over a mesh: tables by rows; see jaxmodels.parallel.rules."""
        return ((r"/embed/embedding$", (("tensor", 0), None)),)


def _normalised(x_BD: jax.Array) -> jax.Array:
    square_B1 = (x_BD.astype(jnp.float32) ** 2).sum(-1, keepdims=True)
    return x_BD * jax.lax.rsqrt(jnp.maximum(square_B1, 1e-12)).astype(x_BD.dtype)
