"""Depthwise separable convolutions: DS-CNN for keywords (arXiv:1711.07128), MobileNet 1 (arXiv:1704.04861).

A block is a 3 x 3 convolution of each channel by itself and a 1 x 1 convolution of all, each with its
normalisation and ReLU; the mean over the map and a dense layer follow (arXiv:1704.04861, table 1).
Dimensions: B batch, H W image (frames and features of a sound), h w map, C channels, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.conv import Conv
from jaxmodels.layers.conv_norm import batch_norm
from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model

Norm = Literal["batch", "folded"]


class Separable(NamedTuple):
    """A block: a row of the papers' tables."""

    out: int  # channels
    stride: int = 1


class DSCNN(Model):
    """Maps images of one or more channels, such as MFCC, to class logits."""

    classes: int  # 0: the pooled features
    rows: Sequence[Separable]
    stem: int  # channels of the first convolution, a plain one
    kernel: tuple[int, int]  # of the stem
    stride: tuple[int, int] = (2, 2)
    norm: Norm = (
        "batch"  # "folded": biases in place of normalisation, as in a trained network for small devices
    )
    epsilon: float = 1e-3
    dropout: float = 0.0  # before the head
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def features(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> dict[str, jax.Array]:
        """Feature maps: "stem" and, for the last block of each resolution, "stage_1", "stage_2", ..."""

        def layer(x, name, features, kernel, stride, groups=1):
            x = Conv(
                features,
                kernel,
                strides=stride,
                feature_group_count=groups,
                use_bias=self.norm == "folded",
                dtype=self.dtype,
                name=name,
            )(x)
            if self.norm == "batch":
                x = batch_norm(keys_B, self.dtype, self.epsilon, name=f"norm_{name}")(x)
            return nn.relu(x)

        x_BHWC = layer(x_BHWC, "conv_0", self.stem, self.kernel, self.stride)
        maps, stage = {"stem": x_BHWC}, 1
        for i, row in enumerate(self.rows, 1):
            stage += i > 1 and row.stride > 1
            C = x_BHWC.shape[-1]
            x_BHWC = layer(x_BHWC, f"depthwise_{i}", C, (3, 3), (row.stride, row.stride), C)
            x_BHWC = layer(x_BHWC, f"conv_{i}", row.out, (1, 1), (1, 1))
            maps[f"stage_{stage}"] = x_BHWC
        return maps

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Class logits; keys_B: one random key per example while training."""
        if x_BHWC.ndim != 4:
            raise ValueError(
                f"DSCNN: got a batch of shape {x_BHWC.shape}; expected (batch, height, width, channels). "
                "Give features of a sound one channel: x[..., None]."
            )
        x_BF = [*self.features(x_BHWC, keys_B).values()][-1].mean((1, 2))
        if not self.classes:
            return x_BF
        x_BF = dropout(x_BF, self.dropout, fold(keys_B, 0))
        return nn.Dense(self.classes, dtype=self.dtype, name="dense")(x_BF)


def _keywords(width: int, blocks: int) -> partial[DSCNN]:
    """arXiv:1711.07128, table 4, for 49 frames of 10 MFCC, without its stride along features."""
    return partial(DSCNN, rows=(Separable(width),) * blocks, stem=width, kernel=(10, 4))


def _first() -> tuple[Separable, ...]:
    """arXiv:1704.04861, table 1: strides of 2 before 128, 256, 512 and 1,024 channels."""
    plain = (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *((512, 1),) * 5,
        (1024, 2),
        (1024, 1),
    )
    return tuple(Separable(*row) for row in plain)


ds_cnn_s = _keywords(64, 4)  # MLPerf Tiny's (arXiv:2106.07597)
ds_cnn_m = _keywords(172, 4)
ds_cnn_l = _keywords(276, 5)
mobilenet_v1 = partial(DSCNN, rows=_first(), stem=32, kernel=(3, 3))
