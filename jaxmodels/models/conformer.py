"""Conformer: convolution and attention in each block, for the frames of a sound (arXiv:2005.08100).

Attention knows relative positions alone (Transformer-XL, arXiv:1901.02860, section 3.3). Differs from the
paper: the convolution of a block is followed by layer normalisation unless norm="batch", so that no example
depends on another; attention's weights have no dropout.
Dimensions: B batch, T frames, F features of a frame, M width, H heads, D width of a head, K classes.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.layers.conv import Conv
from jaxmodels.layers.conv_norm import batch_norm
from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model


class Frames(NamedTuple):
    """What is said of each frame that is left after subsampling."""

    logits_BTK: jax.Array
    segments_BT: jax.Array  # int, 0 where a sound is padded


class FeedForward(Model):
    """Normalisation, then a layer with swish and one back to the width."""

    hidden_width: int
    dropout: float
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x_BTM, keys_B):
        """The branch, not yet added."""
        y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x_BTM)
        y = nn.swish(nn.Dense(self.hidden_width, dtype=self.dtype, name="up")(y))
        y = nn.Dense(x_BTM.shape[-1], dtype=self.dtype, name="down")(
            dropout(y, self.dropout, fold(keys_B, 0))
        )
        return dropout(y, self.dropout, fold(keys_B, 1))


class RelativeAttention(Model):
    """Attention whose scores are of contents and of the distance of two frames."""

    heads: int
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x_BTM, real_BT):
        """The branch, not yet added. No frame attends to one that is not real."""
        B, T, M = x_BTM.shape
        D = M // self.heads

        def heads(name):
            return nn.Dense(M, dtype=self.dtype, name=name)(x_BTM).reshape(B, T, self.heads, D)

        q, k, v = heads("query"), heads("key"), heads("value")
        distance_PM = distances(T, M).astype(x_BTM.dtype)  # P: 2 T - 1 distances
        p = nn.Dense(M, use_bias=False, dtype=self.dtype, name="position")(distance_PM)
        p = p.reshape(-1, self.heads, D)
        content, place = (
            self.param(name, nn.initializers.normal(0.02), (self.heads, D)).astype(q.dtype)
            for name in ("content_bias", "position_bias")
        )
        scores = jnp.einsum("BTHD,BSHD->BHTS", q + content, k)
        scores = scores + shifted(jnp.einsum("BTHD,PHD->BHTP", q + place, p))
        scores = scores.astype(jnp.float32) / np.sqrt(D)
        scores = jnp.where(real_BT[:, None, None], scores, -1e30)
        y = jnp.einsum("BHTS,BSHD->BTHD", jax.nn.softmax(scores).astype(v.dtype), v)
        return nn.Dense(M, dtype=self.dtype, name="out")(y.reshape(B, T, M))


def distances(T: int, M: int) -> jax.Array:
    """Sines and cosines in turn (2 T - 1, M) of the distances T - 1, ..., 1 - T of a query from a key."""
    rate = np.exp(np.arange(0, M, 2) * (-np.log(10_000.0) / M))
    angle = np.arange(T - 1, -T, -1)[:, None] * rate
    return jnp.asarray(np.stack([np.sin(angle), np.cos(angle)], -1).reshape(2 * T - 1, M), jnp.float32)


def shifted(x_BHTP: jax.Array) -> jax.Array:
    """Scores by query and distance as scores by query and key (BHTT); arXiv:1901.02860, appendix B."""
    B, H, T, P = x_BHTP.shape
    x = jnp.pad(x_BHTP, ((0, 0), (0, 0), (0, 0), (1, 0))).reshape(B, H, P + 1, T)
    return x[:, :, 1:].reshape(B, H, T, P)[..., :T]


class Convolution(Model):
    """A gated 1 x 1 convolution, a convolution of each channel over time, and a 1 x 1 convolution."""

    kernel: int
    norm: Literal["layer", "batch"]
    dropout: float
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x_BTM, keys_B, real_BT):
        """The branch, not yet added."""
        M, half = x_BTM.shape[-1], self.kernel // 2
        y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x_BTM)
        y = nn.glu(nn.Dense(2 * M, use_bias=False, dtype=self.dtype, name="gate")(y))
        y = jnp.where(real_BT[..., None], y, 0)
        y = nn.Conv(
            M,
            (self.kernel,),
            padding=((half, half),),
            feature_group_count=M,
            use_bias=False,
            dtype=self.dtype,
            name="depthwise",
        )(y)
        if self.norm == "batch":
            y = batch_norm(keys_B, self.dtype, name="norm_depthwise")(y)
        else:
            y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm_depthwise")(y)
        y = nn.Dense(M, use_bias=False, dtype=self.dtype, name="out")(nn.swish(y))
        return dropout(y, self.dropout, fold(keys_B, 0))


class Block(Model):
    """Half a feed-forward layer, attention, convolution, half a feed-forward layer; then normalised."""

    heads: int
    hidden_width: int
    kernel: int = 31
    norm: Literal["layer", "batch"] = "layer"
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BTM, keys_B, real_BT):
        """x_BTM after this block."""
        feed = partial(FeedForward, self.hidden_width, self.dropout, self.dtype)
        x_BTM += feed(name="first")(x_BTM, fold(keys_B, 0)) / 2
        y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm_attention")(x_BTM)
        y = RelativeAttention(self.heads, self.dtype, name="attention")(y, real_BT)
        x_BTM += dropout(y, self.dropout, fold(keys_B, 1))
        convolution = Convolution(self.kernel, self.norm, self.dropout, self.dtype, name="convolution")
        x_BTM += convolution(x_BTM, fold(keys_B, 2), real_BT)
        x_BTM += feed(name="second")(x_BTM, fold(keys_B, 3)) / 2
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x_BTM)


class Conformer(Model):
    """Maps frames of features to logits of fewer frames."""

    classes: int  # 0: the features of each frame
    width: int
    depth: int
    heads: int
    kernel: int = 31  # frames of the convolution in a block, odd
    hidden_width: int = 0  # 0 is four times the width
    halvings: int = 2  # convolutions at the start, each of which halves frames and features
    channels: int = 0  # of these; 0 is the width
    norm: Literal["layer", "batch"] = "layer"  # "batch", the paper's, counts padded frames while training
    dropout: float = 0.0
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def __call__(
        self, x_BTF: jax.Array, keys_B: jax.Array | None = None, segments_BT: jax.Array | None = None
    ) -> Frames:
        """Logits of each of T / 2^halvings frames, rounded up. segments_BT: 0 where a sound is padded."""
        if x_BTF.ndim != 3 or self.width % (2 * self.heads) or not self.kernel % 2:
            raise ValueError(
                f"Conformer: got features of shape {x_BTF.shape}, width {self.width}, {self.heads} heads and "
                f"kernel {self.kernel}; expected (batch, frames, features), an even width for each head "
                "and an odd kernel. Change what differs."
            )
        if segments_BT is None:
            segments_BT = jnp.ones(x_BTF.shape[:2], jnp.int32)
        x = jnp.where(segments_BT[..., None] > 0, x_BTF, 0)[..., None]
        for i in range(self.halvings):
            x = Conv(
                self.channels or self.width,
                (3, 3),
                strides=2,
                padding=((1, 1), (1, 1)),
                dtype=self.dtype,
                name=f"halve_{i}",
            )(x)
            segments_BT = segments_BT[:, ::2]
            x = jnp.where(segments_BT[..., None, None] > 0, nn.relu(x), 0)
        x_BTM = nn.Dense(self.width, dtype=self.dtype, name="embed")(x.reshape(*x.shape[:2], -1))
        x_BTM = dropout(x_BTM, self.dropout, fold(keys_B, 2**16))
        hidden = self.hidden_width or 4 * self.width
        for i in range(self.depth):
            block = Block(
                self.heads, hidden, self.kernel, self.norm, self.dropout, self.dtype, name=f"block_{i}"
            )
            x_BTM = block(x_BTM, fold(keys_B, i), segments_BT > 0)
        if self.classes:
            x_BTM = nn.Dense(self.classes, dtype=self.dtype, name="head")(x_BTM)
        return Frames(x_BTM, segments_BT)


# arXiv:2005.08100, table 1, without the decoder.
conformer_s = partial(Conformer, width=144, depth=16, heads=4, kernel=31)
conformer_m = partial(Conformer, width=256, depth=16, heads=4, kernel=31)
conformer_l = partial(Conformer, width=512, depth=17, heads=8, kernel=31)
