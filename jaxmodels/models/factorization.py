"""Matrix factorization with biases (Koren, Bell, Volinsky, 2009); factorization machines (Rendle, 2010).

Dimensions: B batch, F fields, A attributes of an item, D factors.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.layers.model import Model


class MatrixFactorization(Model):
    """Maps pairs of a user and an item to ratings: mean + b_user + b_item + p_user · q_item (equation 4).

    Where items have attributes, such as genres, their vectors and biases are added to the item's, each by
    1 / √A for A attributes: what is known of few ratings is then known from similar items (SVDFeature; Chen
    et al., 2012).
    """

    users: int
    items: int
    width: int
    attributes: int = 0  # kinds of attributes; an item's are given as index + 1, and 0 is none
    mean: float = 0.0  # of all ratings, where the first prediction starts
    bounds: tuple[float, float] | None = None  # of ratings: outside of training, predictions are clipped
    deviation: float = 0.05  # of the initial factors
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    def setup(self):
        """Creates the parameters."""
        normal, zeros = nn.initializers.normal(self.deviation), nn.initializers.zeros

        def tables(rows: int) -> tuple[nn.Embed, nn.Embed]:
            factors = nn.Embed(rows, self.width, embedding_init=normal, dtype=self.dtype)
            return factors, nn.Embed(rows, 1, embedding_init=zeros, dtype=self.dtype)

        self.user, self.user_bias = tables(self.users)
        self.item, self.item_bias = tables(self.items)
        if self.attributes:
            self.attribute, self.attribute_bias = tables(self.attributes + 1)
        self.offset = self.param("offset", zeros, ())

    @property
    def sizes(self) -> tuple[int, ...]:
        """The first two columns of the inputs are below these, and all others below the third."""
        return (self.users, self.items, *([self.attributes + 1] if self.attributes else []))

    def __call__(self, ids_BF: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Ratings, B x 1. ids_BF: user, item, attributes. keys_B: one random key per example in training."""
        user_B, item_B = ids_BF[:, 0], ids_BF[:, 1]
        item_BD, bias_B1 = self.item(item_B), self.item_bias(item_B)
        if self.attributes:
            attribute_BAD, attribute_BA1 = self._attributes(ids_BF)
            count_B = jnp.maximum((ids_BF[:, 2:] > 0).sum(-1), 1)
            scale_B1 = (1 / jnp.sqrt(count_B))[:, None].astype(item_BD.dtype)
            item_BD += attribute_BAD.sum(1) * scale_B1
            bias_B1 += attribute_BA1.sum(1) * scale_B1
        product_B = jnp.einsum("BD,BD->B", self.user(user_B), item_BD)
        rating_B1 = product_B[:, None] + bias_B1 + self.user_bias(user_B) + self.offset
        # The mean is added in float32, where mixed precision would round it.
        rating_B1 = rating_B1.astype(jnp.float32) + self.mean
        return rating_B1 if keys_B is not None or self.bounds is None else rating_B1.clip(*self.bounds)

    def penalty(self, ids_BF: jax.Array, *, factors: float, biases: float, attributes: float) -> jax.Array:
        """The squared lengths of what a rating uses, weighted, B (equation 5's second part)."""

        def square(x: jax.Array) -> jax.Array:
            x = x.astype(jnp.float32)
            return (x**2).sum(tuple(range(1, x.ndim)))

        user_B, item_B = ids_BF[:, 0], ids_BF[:, 1]
        penalty_B = factors * (square(self.user(user_B)) + square(self.item(item_B)))
        penalty_B += biases * (square(self.user_bias(user_B)) + square(self.item_bias(item_B)))
        if self.attributes:
            penalty_B += attributes * sum(map(square, self._attributes(ids_BF)))
        return penalty_B

    def _attributes(self, ids_BF: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The vectors and biases of the items' attributes, 0 where there is none."""
        ids_BA = ids_BF[:, 2:]
        vector_BAD, bias_BA1 = self.attribute(ids_BA), self.attribute_bias(ids_BA)
        real_BA1 = (ids_BA > 0)[..., None].astype(vector_BAD.dtype)
        return vector_BAD * real_BA1, bias_BA1 * real_BA1

    def rules(self):
        """How the parameters are split over a mesh: tables by rows; see jaxmodels.parallel.rules."""
        return ((r"/(user|item)(_bias)?/embedding$", (("tensor", 0), None)),)


class FactorizationMachine(Model):
    """Maps features to a number: w_0 + Σ w_f x_f + Σ_{f<g} v_f · v_g x_f x_g (equation 1).

    Each field is a category, by its index, and x_f is 1, or given as a number. Pairs are summed in linear
    time by ½ (|Σ v x|² − Σ |v x|²) (lemma 3.1).
    """

    sizes: Sequence[int]  # categories of each field
    width: int
    mean: float = 0.0  # where the first prediction starts
    bounds: tuple[float, float] | None = None  # outside of training, predictions are clipped
    deviation: float = 0.05  # of the initial factors
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    def setup(self):
        """Creates the parameters: one table for all fields."""
        normal, zeros = nn.initializers.normal(self.deviation), nn.initializers.zeros
        rows = sum(self.sizes)
        self.factors = nn.Embed(rows, self.width, embedding_init=normal, dtype=self.dtype)
        self.linear = nn.Embed(rows, 1, embedding_init=zeros, dtype=self.dtype)
        self.offset = self.param("offset", zeros, ())

    def __call__(
        self, ids_BF: jax.Array, keys_B: jax.Array | None = None, numbers_BN: jax.Array | None = None
    ) -> jax.Array:
        """Outputs, B x 1. numbers_BN: x of each field, by default 1; 0 leaves it out."""
        row_BF = ids_BF + np.cumsum([0, *self.sizes[:-1]], dtype=np.int32)
        v_BFD, w_BF1 = self.factors(row_BF), self.linear(row_BF)
        if numbers_BN is not None:
            x_BF1 = numbers_BN.astype(v_BFD.dtype)[..., None]
            v_BFD, w_BF1 = v_BFD * x_BF1, w_BF1 * x_BF1
        sum_BD = v_BFD.sum(1)
        pairs_B = jnp.einsum("BD,BD->B", sum_BD, sum_BD) - jnp.einsum("BFD,BFD->B", v_BFD, v_BFD)
        output_B1 = 0.5 * pairs_B[:, None] + w_BF1.sum(1) + self.offset
        output_B1 = output_B1.astype(jnp.float32) + self.mean
        return output_B1 if keys_B is not None or self.bounds is None else output_B1.clip(*self.bounds)

    def rules(self):
        """How the parameters are split over a mesh: tables by rows; see jaxmodels.parallel.rules."""
        return ((r"/(factors|linear)/embedding$", (("tensor", 0), None)),)
