"""Residual networks: each block adds its output to its input (arXiv:1512.03385).

ResNet        for ImageNet's sizes and, with a small stem, for smaller ones; "v1.5": the stride of a
              bottleneck is in its 3 x 3 convolution. ResNeXt (arXiv:1611.05431) by groups, wide
              (arXiv:1605.07146) by base_width, squeeze-excite (arXiv:1709.01507) by its own block.
CifarResNet   section 4.2 of the paper: 6n + 2 layers; shortcuts without parameters (A) or projections (B).
WideResNet    arXiv:1605.07146: 6n + 4 layers, normalised before each convolution.

Dimensions: B batch, H W image, h w map, C channels, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.conv import Conv
from jaxmodels.layers.conv_norm import HE, ConvNorm, batch_norm, same_padding
from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model
from jaxmodels.layers.pool import max_pool


class Basic(Model):
    """Two 3 x 3 convolutions."""

    width: int
    stride: int = 1
    groups: int = 1
    base_width: int = 64
    dtype: jnp.dtype | None = None
    expansion = 1

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None) -> jax.Array:
        """The block's features."""
        layer = partial(ConvNorm, self.width, dtype=self.dtype)
        y_BhwF = nn.relu(layer(stride=self.stride, name="conv_1")(x_BHWC, keys_B))
        y_BhwF = layer(last=True, name="conv_2")(y_BhwF, keys_B)
        return nn.relu(y_BhwF + _shortcut(x_BHWC, y_BhwF, self.stride, keys_B, self.dtype))


class Bottleneck(Model):
    """1 x 1, 3 x 3 (with stride and groups) and 1 x 1 convolutions, the last of four times the width."""

    width: int
    stride: int = 1
    groups: int = 1
    base_width: int = 64
    dtype: jnp.dtype | None = None
    expansion = 4

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None) -> jax.Array:
        """The block's features."""
        y_BhwF = self.branch(x_BHWC, keys_B)
        return nn.relu(y_BhwF + _shortcut(x_BHWC, y_BhwF, self.stride, keys_B, self.dtype))

    def branch(self, x_BHWC: jax.Array, keys_B: jax.Array | None) -> jax.Array:
        """The residual branch, before the addition."""
        layer = partial(ConvNorm, dtype=self.dtype)
        inner = self.width * self.base_width // 64 * self.groups
        y_BhwF = nn.relu(layer(inner, 1, name="conv_1")(x_BHWC, keys_B))
        y_BhwF = nn.relu(layer(inner, 3, self.stride, self.groups, name="conv_2")(y_BhwF, keys_B))
        return layer(self.width * self.expansion, 1, last=True, name="conv_3")(y_BhwF, keys_B)


class SqueezeExcite(Bottleneck):
    """A bottleneck whose channels are weighted by a function of their means (arXiv:1709.01507, section 3)."""

    reduction: int = 16

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None) -> jax.Array:
        """The block's features."""
        y_BhwF = self.branch(x_BHWC, keys_B)
        F = y_BhwF.shape[-1]
        gate_BF = nn.relu(
            nn.Dense(F // self.reduction, dtype=self.dtype, name="squeeze")(y_BhwF.mean((1, 2)))
        )
        gate_BF = nn.sigmoid(nn.Dense(F, dtype=self.dtype, name="excite")(gate_BF))
        y_BhwF = y_BhwF * gate_BF[:, None, None]
        return nn.relu(y_BhwF + _shortcut(x_BHWC, y_BhwF, self.stride, keys_B, self.dtype))


def _shortcut(x_BHWC: jax.Array, y_BhwF: jax.Array, stride: int, keys_B: Any, dtype: Any) -> jax.Array:
    """The input, projected where the block changes its shape (option B)."""
    if x_BHWC.shape == y_BhwF.shape:
        return x_BHWC
    return ConvNorm(y_BhwF.shape[-1], 1, stride, dtype=dtype, name="shortcut")(x_BHWC, keys_B)


class ResNet(Model):
    """Maps images to class logits, by stages that each halve height and width."""

    classes: int  # 0: the pooled features
    depths: Sequence[int]
    block: type[nn.Module] = Bottleneck
    widths: Sequence[int] = (64, 128, 256, 512)
    stem: Literal["pool", "plain"] = "pool"  # 7 x 7 at stride 2 and pooling, or 3 x 3 for small images
    stem_width: int = 64
    groups: int = 1
    base_width: int = 64  # channels of a bottleneck's 3 x 3 convolution per 64 of its width
    dropout: float = 0.0  # of the pooled features
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    def setup(self):
        """Creates the head."""
        if self.classes:
            self.head = nn.Dense(self.classes, dtype=self.dtype)

    @nn.compact
    def features(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> dict[str, jax.Array]:
        """Feature maps by stage: "stem", before its pooling, "stage_1", ..."""
        if self.stem == "pool":
            x = nn.relu(ConvNorm(self.stem_width, 7, 2, dtype=self.dtype, name="stem")(x_BHWC, keys_B))
            maps = {"stem": x}
            x = max_pool(x, 3, 2, same_padding(3))
        else:
            x = nn.relu(ConvNorm(self.stem_width, 3, dtype=self.dtype, name="stem")(x_BHWC, keys_B))
            maps = {"stem": x}
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True), 1):
            for i in range(depth):
                stride = 2 if stage > 1 and i == 0 else 1
                block: Any = partial(
                    self.block, groups=self.groups, base_width=self.base_width, dtype=self.dtype
                )
                x = block(width, stride, name=f"stage_{stage}_block_{i}")(x, keys_B)
            maps[f"stage_{stage}"] = x
        return maps

    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Class logits; keys_B: one random key per example while training."""
        maps = self.features(x_BHWC, keys_B)
        return _pooled(self, maps[f"stage_{len(self.depths)}"], keys_B)


def _pooled(model: Any, x_BhwF: jax.Array, keys_B: jax.Array | None) -> jax.Array:
    x_BF = x_BhwF.mean((1, 2))
    if not model.classes:
        return x_BF
    return model.head(dropout(x_BF, model.dropout, fold(keys_B, 0)))


class CifarResNet(Model):
    """Three stages of n blocks of two 3 x 3 convolutions: 6n + 2 layers."""

    classes: int  # 0: the pooled features
    depth: int = 20
    option: Literal["A", "B"] = (
        "A"  # shortcuts where the shape changes: zeros for new channels, or a projection
    )
    widths: Sequence[int] = (16, 32, 64)
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    def setup(self):
        """Creates the head."""
        if (self.depth - 2) % 6 or self.depth < 8:
            raise ValueError(
                f"CifarResNet: got a depth of {self.depth}; expected 6n + 2, such as 20, 32 or 56. Use one "
                "of those."
            )
        if self.classes:
            self.head = nn.Dense(self.classes, dtype=self.dtype)

    @nn.compact
    def features(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> dict[str, jax.Array]:
        """Feature maps by stage: "stem", "stage_1", "stage_2", "stage_3"."""
        x = nn.relu(ConvNorm(self.widths[0], dtype=self.dtype, name="stem")(x_BHWC, keys_B))
        maps = {"stem": x}
        for stage, width in enumerate(self.widths, 1):
            for i in range((self.depth - 2) // 6):
                name, stride = f"stage_{stage}_block_{i}", 2 if stage > 1 and i == 0 else 1
                if self.option == "B":
                    x = Basic(width, stride, dtype=self.dtype, name=name)(x, keys_B)
                else:
                    x = _OptionA(width, stride, self.dtype, name=name)(x, keys_B)
            maps[f"stage_{stage}"] = x
        return maps

    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Class logits; keys_B: one random key per example while training."""
        return _pooled(self, self.features(x_BHWC, keys_B)[f"stage_{len(self.widths)}"], keys_B)


class _OptionA(Model):
    """A basic block whose shortcut subsamples and pads the channels with zeros on both sides."""

    width: int
    stride: int = 1
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None) -> jax.Array:
        y_BhwF = nn.relu(
            ConvNorm(self.width, 3, self.stride, dtype=self.dtype, name="conv_1")(x_BHWC, keys_B)
        )
        y_BhwF = ConvNorm(self.width, last=True, dtype=self.dtype, name="conv_2")(y_BhwF, keys_B)
        new = self.width - x_BHWC.shape[-1]
        x_BhwC = x_BHWC[:, :: self.stride, :: self.stride]
        return nn.relu(y_BhwF + jnp.pad(x_BhwC, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2))))


class WideResNet(Model):
    """Three stages of n blocks, `widen` times as wide as CifarResNet's: 6n + 4 layers."""

    classes: int  # 0: the pooled features
    depth: int = 28
    widen: int = 10
    block_dropout: float = 0.0  # between the convolutions of a block
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    def setup(self):
        """Creates the head."""
        if (self.depth - 4) % 6 or self.depth < 10:
            raise ValueError(
                f"WideResNet: got a depth of {self.depth}; expected 6n + 4, such as 16 or 28. Use one of "
                "those."
            )
        if self.classes:
            self.head = nn.Dense(self.classes, dtype=self.dtype)

    @nn.compact
    def features(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> dict[str, jax.Array]:
        """Feature maps by stage: "stem", "stage_1", "stage_2", "stage_3"; the last is normalised."""
        layer: Callable = partial(
            Conv, padding=same_padding(3), use_bias=False, kernel_init=HE, dtype=self.dtype
        )
        norm: Callable = partial(batch_norm, keys_B, self.dtype)
        x = layer(16, (3, 3), name="stem")(x_BHWC)
        maps = {"stem": x}
        n = (self.depth - 4) // 6
        for stage, width in enumerate((16, 32, 64), 1):
            for i in range(n):
                name, stride, features = (
                    f"stage_{stage}_block_{i}",
                    2 if stage > 1 and i == 0 else 1,
                    width * self.widen,
                )
                y = nn.relu(norm(name=f"{name}_norm_1")(x))
                if x.shape[-1] != features or stride > 1:
                    x = layer(
                        features, (1, 1), strides=stride, padding=same_padding(1), name=f"{name}_shortcut"
                    )(y)
                y = layer(features, (3, 3), strides=stride, name=f"{name}_conv_1")(y)
                y = nn.relu(norm(name=f"{name}_norm_2")(y))
                y = dropout(y, self.block_dropout, fold(keys_B, 1 + (stage - 1) * n + i))
                x = x + layer(features, (3, 3), name=f"{name}_conv_2")(y)
            maps[f"stage_{stage}"] = x
        maps["stage_3"] = nn.relu(norm(name="norm")(x))
        return maps

    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Class logits; keys_B: one random key per example while training."""
        return _pooled(self, self.features(x_BHWC, keys_B)["stage_3"], keys_B)


resnet18 = partial(ResNet, depths=(2, 2, 2, 2), block=Basic)
resnet34 = partial(ResNet, depths=(3, 4, 6, 3), block=Basic)
resnet50 = partial(ResNet, depths=(3, 4, 6, 3))
resnet101 = partial(ResNet, depths=(3, 4, 23, 3))
resnet152 = partial(ResNet, depths=(3, 8, 36, 3))
resnext50_32x4d = partial(resnet50, groups=32, base_width=4)
resnext101_32x8d = partial(resnet101, groups=32, base_width=8)
wide_resnet50_2 = partial(resnet50, base_width=128)
wide_resnet101_2 = partial(resnet101, base_width=128)
seresnet50 = partial(resnet50, block=SqueezeExcite)
cifar_resnet20 = partial(CifarResNet, depth=20)
cifar_resnet32 = partial(CifarResNet, depth=32)
cifar_resnet44 = partial(CifarResNet, depth=44)
cifar_resnet56 = partial(CifarResNet, depth=56)
cifar_resnet110 = partial(CifarResNet, depth=110)
wrn28_10 = partial(WideResNet, depth=28, widen=10)
