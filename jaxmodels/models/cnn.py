"""The textbook convolutional network: convolution, normalisation, ReLU and pooling, repeated; then a dense layer.

After LeNet-5 (LeCun et al., 1998), with ReLU, maximum pooling, and optional batch normalisation (arXiv:1502.03167).
Dimensions: B batch, H W C image, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.dropout import dropout, fold


class CNN(nn.Module):
    """Maps images to class logits; each stage halves height and width."""

    classes: int
    channels: Sequence[int] = (32, 64)
    kernel: int = 3
    hidden: int = 128
    batch_norm: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Logits of images; keys, one per example, while training."""
        smallest = 2 ** len(self.channels)
        if x_BHWC.ndim != 4 or min(x_BHWC.shape[1:3]) < smallest:
            raise ValueError(
                f"CNN: image batch has shape {x_BHWC.shape}; {len(self.channels)} stages need (batch, height, width, "
                f"channels) of at least {smallest}x{smallest}: resize the images or use fewer stages"
            )
        for i, channels in enumerate(self.channels):
            size = (self.kernel, self.kernel)
            x_BHWC = nn.Conv(channels, size, use_bias=not self.batch_norm, dtype=self.dtype, name=f"conv_{i}")(x_BHWC)
            if self.batch_norm:
                # Statistics only while training; its momentum suits runs of a few hundred steps.
                x_BHWC = nn.BatchNorm(keys_B is None, momentum=0.9, dtype=self.dtype, name=f"norm_{i}")(x_BHWC)
            x_BHWC = nn.max_pool(nn.relu(x_BHWC), (2, 2), strides=(2, 2))
        x_BF = x_BHWC.reshape(x_BHWC.shape[0], -1)
        x_BF = dropout(x_BF, self.dropout, fold(keys_B, 0))
        if self.hidden:
            x_BF = nn.relu(nn.Dense(self.hidden, dtype=self.dtype, name="hidden")(x_BF))
            x_BF = dropout(x_BF, self.dropout, fold(keys_B, 1))
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x_BF)
