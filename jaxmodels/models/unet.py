"""U-Net for diffusion: from a noisy image and its time to a prediction of noise or image (arXiv:2006.11239).

As in the paper's appendix B, with two changes (arXiv:2102.09672, arXiv:2105.05233): time scales and shifts
the normalised maps, and the class embedding is added to time's. The first level may work on patches of pixels
(arXiv:2207.04316), which divides the cost by the number of pixels in a patch.
Dimensions: B batch, H W image, h w map, C channels, F features, D width of the time's embedding, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jaxmodels.layers.attention import attention
from jaxmodels.layers.conv import Conv
from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model
from jaxmodels.layers.timestep_embedding import timestep_embedding


class Block(Model):
    """Two convolutions with time between them; added to the input."""

    features: int
    groups: int = 8
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BhwC, time_BD, keys_B=None):
        """The block's features."""
        norm = partial(nn.GroupNorm, self.groups, dtype=self.dtype)
        y = Conv(self.features, (3, 3), dtype=self.dtype, name="conv_1")(nn.silu(norm(name="norm_1")(x_BhwC)))
        moments = nn.Dense(2 * self.features, dtype=self.dtype, name="time")(time_BD)[:, None, None]
        scale, shift = jnp.split(moments, 2, -1)
        y = dropout(nn.silu(norm(name="norm_2")(y) * (1 + scale) + shift), self.dropout, keys_B)
        zeros = nn.initializers.zeros
        y = Conv(self.features, (3, 3), kernel_init=zeros, dtype=self.dtype, name="conv_2")(y)
        if x_BhwC.shape[-1] != self.features:
            x_BhwC = Conv(self.features, (1, 1), dtype=self.dtype, name="shortcut")(x_BhwC)
        return x_BhwC + y


class Attention(Model):
    """Self-attention over all positions; added to the input."""

    heads: int
    groups: int = 8
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BhwC):
        """The map after this layer."""
        B, h, w, C = x_BhwC.shape
        y = nn.GroupNorm(self.groups, dtype=self.dtype, name="norm")(x_BhwC).reshape(B, h * w, C)
        qkv = nn.Dense(3 * C, dtype=self.dtype, name="qkv")(y)
        q, k, v = (z.reshape(B, h * w, self.heads, -1) for z in jnp.split(qkv, 3, -1))
        y = attention(q, k, v).reshape(B, h * w, C)
        y = nn.Dense(C, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="out")(y)
        return x_BhwC + y.reshape(B, h, w, C)


class UNet(Model):
    """Maps noisy images, times from 0 to 1 and optional labels to predictions of the images' shape."""

    channels: Sequence[int] = (64, 128)  # of each level; a level has half the resolution of the one before
    depth: int = 1  # blocks of a level on the way down; one more on the way up
    attention: Sequence[int] = (1,)  # levels with attention
    heads: int = 4
    patch: int = 1  # side in pixels of the first level's patches
    classes: int = 0  # 0: without labels; the label `classes` means none
    dropout: float = 0.0
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def __call__(self, x_BHWC, keys_B=None, *, time_B, label_B=None):
        """The prediction for each image, BHWC; keys_B: one random key per example while training."""
        B, H, W, C = x_BHWC.shape
        step = self.patch * 2 ** (len(self.channels) - 1)
        if H % step or W % step:
            raise ValueError(
                f"UNet: got images of {H}x{W}; expected multiples of {step}, by {len(self.channels)} levels "
                f"and patches of {self.patch}. Pad the images or use fewer levels."
            )
        width = 4 * self.channels[0]
        dense = partial(nn.Dense, dtype=self.dtype)
        time_BD = dense(width, name="time_1")(
            timestep_embedding(time_B, self.channels[0]).astype(x_BHWC.dtype)
        )
        time_BD = dense(width, name="time_2")(nn.silu(time_BD))
        if self.classes:
            label_B = jnp.full(B, self.classes) if label_B is None else label_B
            time_BD += nn.Embed(self.classes + 1, width, dtype=time_BD.dtype, name="label")(label_B)
        time_BD = nn.silu(time_BD)

        index = 0

        def block(x, features, level):
            nonlocal index
            keys = fold(keys_B, index)
            x = Block(features, dropout=self.dropout, dtype=self.dtype, name=f"block_{index}")(
                x, time_BD, keys
            )
            if level in self.attention:
                x = Attention(self.heads, dtype=self.dtype, name=f"attention_{index}")(x)
            index += 1
            return x

        p = self.patch
        x = x_BHWC.reshape(B, H // p, p, W // p, p, C).swapaxes(2, 3).reshape(B, H // p, W // p, p * p * C)
        x = Conv(self.channels[0], (3, 3), dtype=self.dtype, name="first")(x)
        skips = [x]
        for level, features in enumerate(self.channels):
            if level:
                down = Conv(
                    features,
                    (3, 3),
                    strides=2,
                    padding=((1, 1), (1, 1)),
                    dtype=self.dtype,
                    name=f"down_{level}",
                )
                x = down(x)
                skips.append(x)
            for _ in range(self.depth):
                x = block(x, features, level)
                skips.append(x)
        last = len(self.channels) - 1
        x = block(block(x, self.channels[-1], last), self.channels[-1], -1)
        for level, features in reversed(list(enumerate(self.channels))):
            for _ in range(self.depth + 1):
                x = block(jnp.concatenate([x, skips.pop()], -1), features, level)
            if level:
                x = Conv(features, (3, 3), dtype=self.dtype, name=f"up_{level}")(x.repeat(2, 1).repeat(2, 2))
        x = nn.silu(nn.GroupNorm(8, dtype=self.dtype, name="norm")(x))
        x = Conv(p * p * C, (3, 3), kernel_init=nn.initializers.zeros, dtype=self.dtype, name="last")(x)
        return x.reshape(B, H // p, W // p, p, p, C).swapaxes(2, 3).reshape(B, H, W, C)
