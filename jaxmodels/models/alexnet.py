"""AlexNet in one tower (arXiv:1404.5997, footnote 1): five convolutions and three dense layers.

The network of 2012 (Krizhevsky, Sutskever and Hinton) has the same layers with 96, 256, 384, 384 and 256
channels in two towers that meet in the third, and local response normalisation, which this one leaves out.
Dimensions: B batch, H W image, h w map, C channels, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.conv import Conv
from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model
from jaxmodels.layers.pool import adaptive_mean_pool, max_pool


class AlexNet(Model):
    """Maps images to class logits."""

    classes: int  # 0: the features before the head
    channels: Sequence[int] = (64, 192, 384, 256, 256)
    kernels: Sequence[int] = (11, 5, 3, 3, 3)
    padding: Sequence[int] = (2, 2, 1, 1, 1)
    stride: int = 4  # of the first convolution
    pooled: Sequence[int] = (0, 1, 4)  # convolutions followed by max pooling, 3 x 3 at stride 2
    final: int = 6  # height and width to which the last map is averaged
    hidden: Sequence[int] = (4096, 4096)
    dropout: float = 0.5  # before each hidden layer
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    def setup(self):
        """Creates the dense layers."""
        self.dense = [nn.Dense(width, dtype=self.dtype) for width in self.hidden]
        if self.classes:
            self.head = nn.Dense(self.classes, dtype=self.dtype)

    @nn.compact
    def features(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> dict[str, jax.Array]:
        """Feature maps after each convolution and its pooling: "stage_1" to "stage_5"."""
        maps = {}
        for i, (channels, kernel, pad) in enumerate(
            zip(self.channels, self.kernels, self.padding, strict=True)
        ):
            conv = Conv(
                channels,
                (kernel, kernel),
                strides=self.stride if i == 0 else 1,
                padding=((pad, pad), (pad, pad)),
                dtype=self.dtype,
                name=f"conv_{i + 1}",
            )
            x_BHWC = nn.relu(conv(x_BHWC))
            if i in self.pooled:
                x_BHWC = max_pool(x_BHWC, 3, 2)
            maps[f"stage_{i + 1}"] = x_BHWC
        return maps

    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Class logits; keys_B: one random key per example while training."""
        x_BhwC = self.features(x_BHWC, keys_B)[f"stage_{len(self.channels)}"]
        if min(x_BhwC.shape[1:3]) < 1:
            raise ValueError(
                f"AlexNet: got images of {x_BHWC.shape[1]}x{x_BHWC.shape[2]}, too small for its poolings; "
                "expected at least 63x63 for the published size. Resize the images, or use alexnet_28."
            )
        x_BF = adaptive_mean_pool(x_BhwC, self.final).reshape(x_BHWC.shape[0], -1)
        for i, dense in enumerate(self.dense):
            x_BF = nn.relu(dense(dropout(x_BF, self.dropout, fold(keys_B, i))))
        return self.head(x_BF) if self.classes else x_BF


alexnet = partial(AlexNet)
alexnet_28 = partial(  # for images of 28 x 28: smaller kernels and strides, a quarter of the width
    AlexNet,
    channels=(32, 64, 128, 96, 96),
    kernels=(5, 3, 3, 3, 3),
    padding=(2, 1, 1, 1, 1),
    stride=1,
    final=3,
    hidden=(256, 256),
)
