"""Variational autoencoder with convolutional encoder and decoder (arXiv:1312.6114).

Dimensions: B batch, H W image, C channels, D width of the code.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.conv import Conv
from jaxmodels.layers.model import Model


class VAE(Model):
    """Maps images to (logits of the reconstruction, mean and log variance of the code).

    Each stage halves height and width, rounding up; the decoder mirrors the encoder.
    """

    shape: tuple[int, int, int]  # H W C of the images
    code: int = 16
    channels: Sequence[int] = (32, 64)
    hidden: int = 128
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    def setup(self):
        """Creates the submodules and parameters."""
        self.down = [
            Conv(c, (3, 3), strides=2, padding=((1, 1), (1, 1)), dtype=self.dtype) for c in self.channels
        ]
        self.narrow = nn.Dense(self.hidden, dtype=self.dtype)
        self.moments = nn.Dense(2 * self.code, dtype=self.dtype)
        self.wide = nn.Dense(self.hidden, dtype=self.dtype)
        sizes = self.sizes()
        self.seed = nn.Dense(sizes[-1][0] * sizes[-1][1] * self.channels[-1], dtype=self.dtype)
        self.up = [
            Conv(c, (3, 3), dtype=self.dtype) for c in (*reversed(self.channels[:-1]), self.channels[0])
        ]
        self.out = Conv(self.shape[-1], (3, 3), dtype=self.dtype)

    def sizes(self) -> list[tuple[int, int]]:
        """Height and width before and after each stage."""
        sizes = [self.shape[:2]]
        for _ in self.channels:
            height, width = sizes[-1]
            sizes.append((-(-height // 2), -(-width // 2)))
        return sizes

    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None):
        """(logits BHWC, mean BD, log variance BD); keys_B: to sample the codes; None takes the mean."""
        mean_BD, log_variance_BD = self.encode(x_BHWC)
        z_BD = mean_BD
        if keys_B is not None:
            noise_BD = jax.vmap(lambda key: jax.random.normal(key, (self.code,)))(keys_B)
            z_BD = mean_BD + jnp.exp(log_variance_BD / 2) * noise_BD
        return self.decode(z_BD.astype(x_BHWC.dtype)), mean_BD, log_variance_BD

    def encode(self, x_BHWC: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log variance of the code, float32."""
        if x_BHWC.shape[1:] != tuple(self.shape):
            raise ValueError(
                f"VAE: got images of shape {x_BHWC.shape[1:]}; expected {tuple(self.shape)}. Give the model "
                "the images' shape."
            )
        for conv in self.down:
            x_BHWC = nn.silu(conv(x_BHWC))
        x_BF = nn.silu(self.narrow(x_BHWC.reshape(x_BHWC.shape[0], -1)))
        mean_BD, log_variance_BD = jnp.split(self.moments(x_BF).astype(jnp.float32), 2, -1)
        return mean_BD, log_variance_BD

    def decode(self, z_BD: jax.Array) -> jax.Array:
        """Logits of images, BHWC."""
        sizes = self.sizes()
        x = nn.silu(self.seed(nn.silu(self.wide(z_BD)))).reshape(z_BD.shape[0], *sizes[-1], self.channels[-1])
        for conv, (h, w) in zip(self.up, reversed(sizes[:-1]), strict=True):
            x = x.repeat(2, 1).repeat(2, 2)[:, :h, :w]
            x = nn.silu(conv(x))
        return self.out(x)
