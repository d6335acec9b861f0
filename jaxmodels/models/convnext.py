"""ConvNeXt: a convolutional network with a transformer's proportions (arXiv:2201.03545).

Dimensions: B batch, H W image, h w map, C channels, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.conv import Conv
from jaxmodels.layers.drop_path import drop_path
from jaxmodels.layers.dropout import fold
from jaxmodels.layers.model import Model

small = nn.initializers.truncated_normal(0.02)


class Block(Model):
    """A depthwise 7 x 7 convolution, then an MLP at each position; added to the input."""

    layer_scale: float = 1e-6  # initial scale of each channel; 0 is no scale
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BhwC: jax.Array, keys_B: jax.Array | None, rate: float | jax.Array) -> jax.Array:
        """The block's features; rate: probability of dropping the branch (stochastic depth)."""
        C = x_BhwC.shape[-1]
        conv = Conv(C, (7, 7), feature_group_count=C, kernel_init=small, dtype=self.dtype, name="conv")
        dense = partial(nn.Dense, kernel_init=small, dtype=self.dtype)
        y_BhwC = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(conv(x_BhwC))
        y_BhwC = dense(C, name="down")(nn.gelu(dense(4 * C, name="up")(y_BhwC), approximate=False))
        if self.layer_scale:
            y_BhwC *= self.param("scale", nn.initializers.constant(self.layer_scale), (C,)).astype(
                y_BhwC.dtype
            )
        return x_BhwC + drop_path(y_BhwC, rate, keys_B)


class ConvNeXt(Model):
    """Maps images to class logits, by stages that each halve height and width; the stem quarters them."""

    classes: int  # 0: the pooled and normalised features
    depths: Sequence[int] = (3, 3, 9, 3)
    widths: Sequence[int] = (96, 192, 384, 768)
    patch: int = 4  # of the stem
    drop_path: float = 0.0  # of the last block; from 0 at the first it rises linearly
    layer_scale: float = 1e-6
    epsilon: float = 1e-6  # of the head's normalisation
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    def setup(self):
        """Creates the head."""
        self.norm = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype)
        if self.classes:
            self.head = nn.Dense(self.classes, kernel_init=small, dtype=self.dtype)

    @nn.compact
    def features(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> dict[str, jax.Array]:
        """Feature maps by stage: "stem", "stage_1", ...."""
        least = self.patch * 2 ** (len(self.depths) - 1)
        if min(x_BHWC.shape[1:3]) < least:
            raise ValueError(
                f"ConvNeXt: got images of {x_BHWC.shape[1]}x{x_BHWC.shape[2]}; expected at least "
                f"{least}x{least}, by {len(self.depths)} stages and patches of {self.patch}. Resize the "
                "images, or use a smaller patch."
            )
        norm = partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)

        def down(features: int, size: int, name: str) -> nn.Conv:
            k = (size, size)
            return Conv(
                features, k, strides=k, padding="VALID", kernel_init=small, dtype=self.dtype, name=name
            )

        x = norm(name="stem_norm")(down(self.widths[0], self.patch, "stem")(x_BHWC))
        maps = {"stem": x}
        count = 0
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True), 1):
            if stage > 1:
                x = down(width, 2, f"stage_{stage}_down")(norm(name=f"stage_{stage}_norm")(x))
            for i in range(depth):
                rate = self.drop_path * count / max(1, sum(self.depths) - 1)
                x = Block(self.layer_scale, self.dtype, name=f"stage_{stage}_block_{i}")(
                    x, fold(keys_B, count), rate
                )
                count += 1
            maps[f"stage_{stage}"] = x
        return maps

    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Class logits; keys_B: one random key per example while training."""
        x_BF = self.norm(self.features(x_BHWC, keys_B)[f"stage_{len(self.depths)}"].mean((1, 2)))
        return self.head(x_BF) if self.classes else x_BF


convnext_tiny = partial(ConvNeXt)
convnext_small = partial(ConvNeXt, depths=(3, 3, 27, 3))
convnext_base = partial(ConvNeXt, depths=(3, 3, 27, 3), widths=(128, 256, 512, 1024))
convnext_large = partial(ConvNeXt, depths=(3, 3, 27, 3), widths=(192, 384, 768, 1536))
