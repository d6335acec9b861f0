"""DCGAN: generator and discriminator of images (arXiv:1511.06434).

Differs from the paper: no batch statistics, but group normalisation in the generator and none in the
discriminator, as its gradient is penalised (arXiv:1801.04406); upsampling by repetition and a convolution,
which avoids checkerboard patterns.
Dimensions: B batch, H W image, h w map, C channels, D width of the code.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.conv import Conv
from jaxmodels.layers.model import Model


class Generator(Model):
    """Maps codes (BD) to images from 0 to 1; each stage doubles height and width."""

    shape: tuple[int, int, int]  # H W C of the images
    code: int = 64
    channels: Sequence[int] = (96, 64, 32)  # of the seed and after each stage
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def __call__(self, z_BD: jax.Array) -> jax.Array:
        """Images, BHWC."""
        H, W, C = self.shape
        factor = 2 ** (len(self.channels) - 1)
        if H % factor or W % factor:
            raise ValueError(
                f"Generator: got images of {H}x{W} for {len(self.channels) - 1} stages; expected multiples "
                f"of {factor}. Use fewer stages."
            )
        x = nn.Dense(H // factor * (W // factor) * self.channels[0], dtype=self.dtype, name="seed")(z_BD)
        x = x.reshape(z_BD.shape[0], H // factor, W // factor, self.channels[0])
        x = nn.leaky_relu(nn.GroupNorm(8, dtype=self.dtype, name="norm_0")(x), 0.2)
        for i, channels in enumerate(self.channels[1:], 1):
            x = Conv(channels, (3, 3), dtype=self.dtype, name=f"conv_{i}")(x.repeat(2, 1).repeat(2, 2))
            x = nn.leaky_relu(nn.GroupNorm(8, dtype=self.dtype, name=f"norm_{i}")(x), 0.2)
        return nn.sigmoid(Conv(C, (3, 3), dtype=self.dtype, name="out")(x))


class Discriminator(Model):
    """Maps images from 0 to 1 to logits, above 0 for real ones; each stage halves height and width."""

    channels: Sequence[int] = (32, 64, 128)
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """Logits, B."""
        x = 2 * x_BHWC - 1
        for i, channels in enumerate(self.channels):
            x = Conv(
                channels, (4, 4), strides=2, padding=((1, 1), (1, 1)), dtype=self.dtype, name=f"conv_{i}"
            )(x)
            x = nn.leaky_relu(x, 0.2)
        return nn.Dense(1, dtype=self.dtype, name="head")(x.reshape(x.shape[0], -1))[:, 0]
