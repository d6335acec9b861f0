"""SASRec: self-attention over a user's actions, which predicts the next item (arXiv:1808.09781).

As in the authors' code, each block adds its output to its normalised input, keys and values come from what
is not normalised, and one table embeds items and scores them. Keys have no bias, as a softmax removes it.
Dimensions: B batch, T S actions, D width, H heads, V items.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model


class Block(Model):
    """Causal self-attention, then a network at each position."""

    heads: int
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BTD: jax.Array, user_BT: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """x after this block. user_BT: whose action it is, where a row has several users'; 0 is padding."""
        B, T, D = x_BTD.shape
        dense = partial(nn.Dense, D, dtype=self.dtype)
        norm = partial(nn.LayerNorm, epsilon=1e-8, dtype=self.dtype)

        query_BTD = norm(name="norm_attention")(x_BTD)
        heads = (B, T, self.heads, D // self.heads)
        q, k, v = (
            dense(name="query")(query_BTD).reshape(heads),
            dense(use_bias=False, name="key")(x_BTD).reshape(heads),
            dense(name="value")(x_BTD).reshape(heads),
        )
        scores_BHTS = jnp.einsum("BTHD,BSHD->BHTS", q, k).astype(jnp.float32) / heads[-1] ** 0.5
        same_BTS = (user_BT[:, :, None] == user_BT[:, None]) & (user_BT > 0)[:, None]
        allowed = jnp.tril(jnp.ones((T, T), bool)) & same_BTS[:, None]
        weights_BHTS = nn.softmax(jnp.where(allowed, scores_BHTS, -1e30), -1).astype(v.dtype)
        weights_BHTS = dropout(weights_BHTS, self.dropout, fold(keys_B, 0))
        x_BTD = query_BTD + jnp.einsum("BHTS,BSHD->BTHD", weights_BHTS, v).reshape(B, T, D)

        x_BTD = norm(name="norm_mlp")(x_BTD)
        y_BTD = dropout(nn.relu(dense(name="up")(x_BTD)), self.dropout, fold(keys_B, 1))
        x_BTD += dropout(dense(name="down")(y_BTD), self.dropout, fold(keys_B, 2))
        return x_BTD * (user_BT > 0)[..., None].astype(x_BTD.dtype)


class SASRec(Model):
    """Maps a user's actions to a vector after each; its product with an item's vector is the item's score."""

    items: int  # V; an action is an item's index + 1, and 0 is padding
    length: int  # most actions that are looked at
    width: int = 50
    depth: int = 2
    heads: int = 1
    dropout: float = 0.5
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    def setup(self):
        """Creates the parameters."""
        if self.width % self.heads:
            raise ValueError(
                f"SASRec: got width {self.width} and {self.heads} heads; expected a multiple of the number "
                "of heads. Change one."
            )
        uniform = nn.initializers.glorot_uniform()
        self.embed = nn.Embed(self.items + 1, self.width, embedding_init=uniform, dtype=self.dtype)
        self.position = self.param("position", uniform, (self.length, self.width))
        self.blocks = [Block(self.heads, self.dropout, self.dtype) for _ in range(self.depth)]
        self.norm = nn.LayerNorm(epsilon=1e-8, dtype=self.dtype)

    def __call__(
        self, actions_BT: jax.Array, keys_B: jax.Array | None = None, segments_BT: jax.Array | None = None
    ) -> jax.Array:
        """The user's state after each action, BTD; keys_B: one random key per example in training.

        A position counts back from the newest action. segments_BT: numbers of the users whose actions are
        packed into a row, from 1, and 0 for padding; without, a row is one user's, with padding before it.
        """
        T = actions_BT.shape[1]
        if self.length < T:
            raise ValueError(
                f"SASRec: got {T} actions; expected at most {self.length}. Give the newest, or make the "
                "model longer."
            )
        x_BTD = self.embed(actions_BT) * self.width**0.5
        if segments_BT is None:
            user_BT = (actions_BT > 0).astype(jnp.int32)
            x_BTD += self.position[self.length - T :].astype(x_BTD.dtype)
        else:
            user_BT = segments_BT
            later_BTS = (user_BT[:, :, None] == user_BT[:, None]) & ~jnp.tril(jnp.ones((T, T), bool))
            x_BTD += self.position[self.length - 1 - later_BTS.sum(-1)].astype(x_BTD.dtype)
        x_BTD = dropout(x_BTD, self.dropout, fold(keys_B, 2**16)) * (user_BT > 0)[..., None].astype(
            x_BTD.dtype
        )
        for n, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, user_BT, fold(keys_B, n))
        return self.norm(x_BTD)

    def item_vectors(self, items: jax.Array) -> jax.Array:
        """The vectors of items (index + 1) of any shape; the last axis is D."""
        return self.embed(items)

    def table(self) -> jax.Array:
        """The vectors of all items, V x D."""
        return self.embed.embedding[1:]

    def rules(self):
        """How the parameters are split over a mesh: the table by rows; see jaxmodels.parallel.rules."""
        return ((r"/embed/embedding$", (("tensor", 0), None)),)
