"""DETR, detection by a transformer: each of a set of queries predicts one object (arXiv:2005.12872).

Dimensions: B batch, H W image, h w positions of the map, P = h w, Q queries, D width, F hidden, K classes, L
    layers.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.layers.attention import attention
from jaxmodels.layers.conv import Conv
from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model
from jaxmodels.layers.stack import stack

xavier = nn.initializers.xavier_uniform()


class Queries(NamedTuple):
    """Predictions of each query after each layer of the decoder; the last class is "no object"."""

    logits_LBQK: jax.Array  # of K + 1 classes
    boxes_LBQ4: jax.Array  # y0 x0 y1 x1 in pixels of the image


class Block(Model):
    """Sublayers of both kinds of block; position encodings are added to queries and keys."""

    heads: int
    hidden_width: int
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    def attend(self, q_BTD, k_BSD, v_BSD, name):
        """Multi-head attention with projections."""
        D = q_BTD.shape[-1]
        dense = partial(nn.Dense, kernel_init=xavier, dtype=self.dtype)
        parts = ((q_BTD, "query"), (k_BSD, "key"), (v_BSD, "value"))
        q, k, v = (
            dense(D, name=f"{name}_{part}")(x).reshape(*x.shape[:2], self.heads, -1) for x, part in parts
        )
        return dense(D, name=f"{name}_out")(attention(q, k, v).reshape(q_BTD.shape))

    def add(self, x_BTD, y_BTD, keys_B, name):
        """x + dropout(y), normalised."""
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)(
            x_BTD + dropout(y_BTD, self.dropout, keys_B)
        )

    def mlp(self, x_BTD, keys_B):
        """MLP at each position, with residual and normalisation."""
        dense = partial(nn.Dense, kernel_init=xavier, dtype=self.dtype)
        y_BTF = dropout(nn.relu(dense(self.hidden_width, name="up")(x_BTD)), self.dropout, fold(keys_B, 0))
        return self.add(x_BTD, dense(x_BTD.shape[-1], name="down")(y_BTF), fold(keys_B, 1), "norm_mlp")


class EncoderBlock(Block):
    """Self-attention over the map, then MLP."""

    @nn.compact
    def __call__(self, x_BPD, keys_B, _, position_PD):
        """(x, None) after this block."""
        q = k = x_BPD + position_PD
        x_BPD = self.add(x_BPD, self.attend(q, k, x_BPD, "self"), fold(keys_B, 2), "norm_self")
        return self.mlp(x_BPD, keys_B), None


class DecoderBlock(Block):
    """Self-attention over the queries, cross-attention to the map, then MLP."""

    @nn.compact
    def __call__(self, x_BQD, keys_B, _, memory_BPD, position_PD, query_QD):
        """(x, x) after this block."""
        q = k = x_BQD + query_QD
        x_BQD = self.add(x_BQD, self.attend(q, k, x_BQD, "self"), fold(keys_B, 2), "norm_self")
        y_BQD = self.attend(x_BQD + query_QD, memory_BPD + position_PD, memory_BPD, "cross")
        x_BQD = self.mlp(self.add(x_BQD, y_BQD, fold(keys_B, 3), "norm_cross"), keys_B)
        return x_BQD, x_BQD


class DETR(Model):
    """Maps images to Queries."""

    backbone: nn.Module  # has features(images, keys): feature maps by name
    level: str  # name of the feature map
    classes: int
    queries: int = 100
    width: int = 256
    heads: int = 8
    depth: int = 6  # layers of the encoder, and of the decoder
    hidden_width: int = 2048
    dropout: float = 0.1
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> Queries:
        """Class logits and boxes of each query; keys_B: one random key per example while training."""
        B, H, W, _ = x_BHWC.shape
        map_BhwD = Conv(self.width, (1, 1), dtype=self.dtype, name="project")(
            self.backbone.features(x_BHWC, keys_B)[self.level]
        )
        h, w = map_BhwD.shape[1:3]
        position_PD = jnp.asarray(position_encoding(h, w, self.width), map_BhwD.dtype)
        block = (self.heads, self.hidden_width, self.dropout, self.dtype)
        memory_BPD, _ = stack(
            EncoderBlock(*block, name="encoder"),
            self.depth,
            map_BhwD.reshape(B, h * w, -1),
            fold(keys_B, 0),
            None,
            position_PD,
        )
        query_QD = self.param("query", nn.initializers.normal(1.0), (self.queries, self.width)).astype(
            memory_BPD.dtype
        )
        begin_BQD = jnp.zeros((B, *query_QD.shape), memory_BPD.dtype)
        decoder = DecoderBlock(*block, name="decoder")
        _, x_LBQD = stack(
            decoder, self.depth, begin_BQD, fold(keys_B, 1), None, memory_BPD, position_PD, query_QD
        )
        x_LBQD = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x_LBQD)

        dense = partial(nn.Dense, dtype=self.dtype)
        y = x_LBQD
        for i in range(2):
            y = nn.relu(dense(self.width, name=f"box_{i}")(y))
        center_LBQ4 = nn.sigmoid(dense(4, name="box_2")(y).astype(jnp.float32))
        middle, size = jnp.split(center_LBQ4, 2, -1)
        boxes_LBQ4 = jnp.concatenate([middle - size / 2, middle + size / 2], -1) * jnp.array(
            [H, W, H, W], jnp.float32
        )
        return Queries(dense(self.classes + 1, name="head")(x_LBQD), boxes_LBQ4)


def position_encoding(h: int, w: int, width: int) -> np.ndarray:
    """Sines and cosines in turn, (P, width), of each position's row, then column, scaled to (0, 2 pi]."""
    n = width // 2
    rate = 10_000.0 ** -(2 * (np.arange(n) // 2) / n)
    rows, columns = np.meshgrid((np.arange(h) + 1) / h, (np.arange(w) + 1) / w, indexing="ij")
    angles = [2 * math.pi * position.reshape(-1, 1) * rate for position in (rows, columns)]
    even = np.arange(n) % 2 == 0
    return np.concatenate([np.where(even, np.sin(angle), np.cos(angle)) for angle in angles], -1).astype(
        np.float32
    )
