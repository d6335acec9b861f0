"""HiFi-GAN's generator: frames of a spectrogram, or of a latent space, become sound (arXiv:2010.05646).

Transposed convolutions lengthen the frames to samples; after each, residual blocks of several kernels and
dilations, whose mean is taken (multi-receptive field fusion). The discriminators are not here.
Differs from the paper: weights are plain, without weight normalisation, and what lies beyond a shorter
sound's end is zero before every convolution, so that a padded sound is the one that it is alone.
Dimensions: B batch, T frames or samples, C channels, N samples, G features of a condition.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.model import Model

Block = Literal["pairs", "single"]


class Residual(Model):
    """Residual units, each of a dilated convolution and, in pairs, another without dilation."""

    kernel: int
    dilations: tuple[int, ...]
    block: Block
    slope: float

    @nn.compact
    def __call__(self, x_BTC, real_BT1):
        """x_BTC after all units."""

        def convolved(x, dilation, name):
            pad = self.kernel // 2 * dilation
            x = nn.leaky_relu(x, self.slope) * real_BT1
            return nn.Conv(
                x.shape[-1], (self.kernel,), kernel_dilation=dilation, padding=((pad, pad),), name=name
            )(x)

        for i, dilation in enumerate(self.dilations):
            y = convolved(x_BTC, dilation, f"first_{i}")
            if self.block == "pairs":
                y = convolved(y, 1, f"second_{i}")
            x_BTC += y
        return x_BTC


class HiFiGAN(Model):
    """Maps frames to samples from -1 to 1; a frame becomes as many as the product of the strides."""

    channels: int = 512  # after the first convolution; halved by every stride
    strides: tuple[int, ...] = (8, 8, 2, 2)
    kernels: tuple[int, ...] = (16, 16, 4, 4)  # of the transposed convolutions
    block_kernels: tuple[int, ...] = (3, 7, 11)
    block_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    block: Block = "pairs"
    slope: float = 0.1  # of leaky rectifiers below 0, but for the last, which has 0.01
    last_bias: bool = True

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        hop = 1
        for stride in self.strides:
            hop *= stride
        return hop

    def check(self) -> None:
        """Raises where sizes do not fit each other."""
        uneven = [
            (k, s) for k, s in zip(self.kernels, self.strides, strict=False) if k < s or (k - s) % 2 or s < 1
        ]
        lists = len(self.kernels) == len(self.strides) and len(self.block_kernels) == len(
            self.block_dilations
        )
        if uneven or not lists or not all(k % 2 for k in self.block_kernels):
            raise ValueError(
                f"HiFiGAN: got strides {self.strides} with kernels {self.kernels}, and blocks of kernels "
                f"{self.block_kernels} with dilations {self.block_dilations}; expected a kernel for each "
                "stride, longer by an even number, and odd kernels of blocks, each with its dilations. "
                "Change what differs."
            )
        if self.channels < 1 or self.channels % 2 ** len(self.strides):
            raise ValueError(
                f"HiFiGAN: got {self.channels} channels; expected a multiple of {2 ** len(self.strides)}, as "
                f"{len(self.strides)} strides halve them. Change channels."
            )

    @nn.compact
    def __call__(
        self, x_BTC: jax.Array, segments_BT: jax.Array | None = None, condition_BG: jax.Array | None = None
    ) -> jax.Array:
        """Samples (BN). segments_BT: 0 where a sound is padded. condition_BG: such as of a speaker."""
        self.check()
        real = jnp.ones(x_BTC.shape[:2]) if segments_BT is None else segments_BT > 0
        real = real.astype(x_BTC.dtype)[..., None]
        x = nn.Conv(self.channels, (7,), padding=((3, 3),), name="first")(x_BTC * real)
        if condition_BG is not None:
            x += nn.Dense(self.channels, name="condition")(condition_BG)[:, None]
        for i, (stride, kernel) in enumerate(zip(self.strides, self.kernels, strict=True)):
            pad = kernel - 1 - (kernel - stride) // 2
            x = nn.ConvTranspose(
                self.channels // 2 ** (i + 1),
                (kernel,),
                strides=(stride,),
                padding=((pad, pad),),
                name=f"up_{i}",
            )(nn.leaky_relu(x, self.slope) * real)
            real = jnp.repeat(real, stride, axis=1)
            blocks = [
                Residual(k, d, self.block, self.slope, name=f"block_{i}_{j}")(x, real)
                for j, (k, d) in enumerate(zip(self.block_kernels, self.block_dilations, strict=True))
            ]
            x = sum(blocks[1:], blocks[0]) / len(blocks)
        x = nn.leaky_relu(x, 0.01) * real
        x = nn.Conv(1, (7,), padding=((3, 3),), use_bias=self.last_bias, name="last")(x)
        return (jnp.tanh(x) * real)[..., 0]


# arXiv:2010.05646, table 5 of the appendix.
hifi_gan_v1 = partial(HiFiGAN)
hifi_gan_v2 = partial(HiFiGAN, channels=128)
hifi_gan_v3 = partial(
    HiFiGAN,
    channels=256,
    strides=(8, 8, 4),
    kernels=(16, 16, 8),
    block_kernels=(3, 5, 7),
    block_dilations=((1, 2), (2, 6), (3, 12)),
    block="single",
)
