"""Convolutional networks of the textbooks.

CNN    convolution, optional batch normalisation (arXiv:1502.03167), ReLU and pooling, repeated; a dense layer
LeNet  LeNet-5 (LeCun et al., 1998) as in textbooks: tanh, mean pooling, every map of the second convolution
       connected to all of the first, and softmax in place of radial basis functions

Dimensions: B batch, H W C image, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.batch_norm import BatchNorm
from jaxmodels.layers.conv import Conv
from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model
from jaxmodels.layers.pool import max_pool


class CNN(Model):
    """Maps images to class logits; each stage halves height and width."""

    classes: int  # 0: the features before the head
    channels: Sequence[int] = (32, 64)
    kernel: int = 3
    hidden: int = 128
    batch_norm: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def features(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> dict[str, jax.Array]:
        """Feature maps by stage, each pooled: "stage_1", "stage_2", ...."""
        smallest = 2 ** len(self.channels)
        if x_BHWC.ndim != 4 or min(x_BHWC.shape[1:3]) < smallest:
            raise ValueError(
                f"CNN: got a batch of shape {x_BHWC.shape}; expected (batch, height, width, channels) of at "
                f"least {smallest}x{smallest}, by {len(self.channels)} stages. Resize the images or use "
                "fewer stages."
            )
        maps = {}
        for i, channels in enumerate(self.channels):
            size = (self.kernel, self.kernel)
            x_BHWC = Conv(channels, size, use_bias=not self.batch_norm, dtype=self.dtype, name=f"conv_{i}")(
                x_BHWC
            )
            if self.batch_norm:
                # Batch statistics only while training; the momentum suits runs of a few hundred steps.
                x_BHWC = BatchNorm(keys_B is None, momentum=0.9, dtype=self.dtype, name=f"norm_{i}")(x_BHWC)
            x_BHWC = max_pool(nn.relu(x_BHWC))
            maps[f"stage_{i + 1}"] = x_BHWC
        return maps

    def setup(self):
        """Creates the dense layers."""
        if self.hidden:
            self.dense = nn.Dense(self.hidden, dtype=self.dtype)
        if self.classes:
            self.head = nn.Dense(self.classes, dtype=self.dtype)

    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Class logits; keys_B: one random key per example while training."""
        maps = self.features(x_BHWC, keys_B)
        x_BHWC = maps[f"stage_{len(self.channels)}"] if maps else x_BHWC
        x_BF = dropout(x_BHWC.reshape(x_BHWC.shape[0], -1), self.dropout, fold(keys_B, 0))
        if self.hidden:
            x_BF = nn.relu(self.dense(x_BF))
            x_BF = dropout(x_BF, self.dropout, fold(keys_B, 1))
        return self.head(x_BF) if self.classes else x_BF


class LeNet(Model):
    """Maps grey images of 32 x 32 (or 28 x 28, which are padded with zeros) to class logits."""

    classes: int = 10  # 0: the features before the head
    dtype: jnp.dtype | None = None

    @nn.compact
    def features(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> dict[str, jax.Array]:
        """Feature maps by stage: "stage_1" and "stage_2" pooled, "stage_3" of one pixel."""
        H, W = x_BHWC.shape[1:3]
        if (H, W) not in ((28, 28), (32, 32)):
            raise ValueError(f"LeNet: got images of {H}x{W}; expected 32x32 or 28x28. Resize the images.")
        border = (32 - H) // 2
        x_BHWC = jnp.pad(x_BHWC, ((0, 0), (border, border), (border, border), (0, 0)))
        maps = {}
        for i, channels in enumerate((6, 16), 1):
            x_BHWC = Conv(channels, (5, 5), padding="VALID", dtype=self.dtype, name=f"conv_{i}")(x_BHWC)
            x_BHWC = nn.avg_pool(nn.tanh(x_BHWC), (2, 2), strides=(2, 2))
            maps[f"stage_{i}"] = x_BHWC
        maps["stage_3"] = nn.tanh(Conv(120, (5, 5), padding="VALID", dtype=self.dtype, name="conv_3")(x_BHWC))
        return maps

    def setup(self):
        """Creates the dense layers."""
        self.hidden = nn.Dense(84, dtype=self.dtype)
        if self.classes:
            self.head = nn.Dense(self.classes, dtype=self.dtype)

    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Class logits."""
        x_BF = nn.tanh(self.hidden(self.features(x_BHWC, keys_B)["stage_3"][:, 0, 0]))
        return self.head(x_BF) if self.classes else x_BF
