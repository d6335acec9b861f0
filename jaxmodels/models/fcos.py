"""FCOS, detection without anchors: each position of a pyramid predicts class and box (arXiv:1904.01355).

The pyramid is arXiv:1612.03144. Differs from the paper: the class score also predicts the overlap of the box
with the object (arXiv:2006.04388), in place of a separate centre-ness.
Dimensions: B batch, H W image, h w positions of a level, C channels of a map, D width, K classes, P positions
    of all levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.conv import Conv
from jaxmodels.layers.model import Model
from jaxmodels.layers.pool import ceil_padding, max_pool


class DensePredictions(NamedTuple):
    """Predictions at all positions of all levels, the finest level first, row by row."""

    logits_BPK: jax.Array
    boxes_BP4: jax.Array  # y0 x0 y1 x1 in pixels of the image
    center_P2: jax.Array  # y x of the position
    stride_P: jax.Array  # pixels between the positions of its level


class FeaturePyramid(Model):
    """Maps of one width, the coarse ones added to the finer ones (arXiv:1612.03144, section 3)."""

    width: int
    coarser: int = 0  # further levels, each at half the resolution
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        """One map for each of the given ones, finest first, then the coarser ones."""
        conv = partial(Conv, self.width, dtype=self.dtype)
        sides = [conv((1, 1), name=f"side_{i}")(x) for i, x in enumerate(maps)]
        for i in reversed(range(len(sides) - 1)):
            B, h, w, D = sides[i].shape
            sides[i] += jax.image.resize(sides[i + 1], (B, h, w, D), "nearest")
        levels = [conv((3, 3), name=f"out_{i}")(x) for i, x in enumerate(sides)]
        for i in range(self.coarser):
            levels.append(
                conv((3, 3), strides=2, padding=((1, 1), (1, 1)), name=f"coarser_{i}")(nn.relu(levels[-1]))
            )
        return levels


class SimplePyramid(Model):
    """Three maps from a ViT's, at twice, once and half its resolution (arXiv:2203.16527, section 3)."""

    width: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        """Maps from the last of the given ones, finest first."""
        x = maps[-1]
        finer = nn.ConvTranspose(self.width, (2, 2), strides=(2, 2), dtype=self.dtype, name="finer")(x)
        coarser = max_pool(x, 2, 2, (ceil_padding(x.shape[1], 2, 2), ceil_padding(x.shape[2], 2, 2)))
        conv = partial(Conv, self.width, (3, 3), dtype=self.dtype)
        return [conv(name=f"out_{i}")(nn.relu(y)) for i, y in enumerate((finer, x, coarser))]


class FCOS(Model):
    """Maps images to DensePredictions."""

    backbone: nn.Module  # has features(images, keys): feature maps by name
    classes: int
    levels: Sequence[str]  # names of the backbone's maps, finest first
    pyramid: nn.Module  # from maps to maps of one width
    width: int  # of the head
    depth: int = 2  # convolutions of each of the head's two towers
    groups: int = 8  # of the head's normalisation (arXiv:1803.08494)
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> DensePredictions:
        """Class logits and boxes at each position; keys_B: one random key per example while training."""
        maps = self.backbone.features(x_BHWC, keys_B)
        levels = self.pyramid([maps[name] for name in self.levels])
        small, rare = nn.initializers.normal(0.01), nn.initializers.constant(-math.log(99))
        towers = {name: self._tower(name) for name in ("class", "box")}
        score = Conv(self.classes, (3, 3), kernel_init=small, bias_init=rare, dtype=self.dtype, name="head")
        reach = Conv(4, (3, 3), kernel_init=small, dtype=self.dtype, name="edges")
        predictions = []
        for i, x in enumerate(levels):
            B, h, w, _ = x.shape
            y, z = x, x
            for (conv, norm), (other_conv, other_norm) in zip(towers["class"], towers["box"], strict=True):
                y, z = nn.relu(norm(conv(y))), nn.relu(other_norm(other_conv(z)))
            stride = x_BHWC.shape[1] / h
            scale = self.param(f"scale_{i}", nn.initializers.ones, ())
            edges_BP4 = nn.softplus(scale * reach(z).astype(jnp.float32) + 1.0).reshape(B, h * w, 4) * stride
            center_P2 = (
                jnp.stack(jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing="ij"), -1).reshape(-1, 2) + 0.5
            ) * stride
            boxes_BP4 = jnp.concatenate([center_P2 - edges_BP4[..., :2], center_P2 + edges_BP4[..., 2:]], -1)
            predictions.append(
                (score(y).reshape(B, h * w, -1), boxes_BP4, center_P2, jnp.full(h * w, stride))
            )
        logits, boxes, centers, strides = zip(*predictions, strict=True)
        return DensePredictions(
            jnp.concatenate(logits, 1),
            jnp.concatenate(boxes, 1),
            jnp.concatenate(centers),
            jnp.concatenate(strides),
        )

    def _tower(self, name: str) -> list[tuple[nn.Module, nn.Module]]:
        """Convolutions with their normalisations, shared by all levels."""
        return [
            (
                Conv(self.width, (3, 3), use_bias=False, dtype=self.dtype, name=f"{name}_conv_{i}"),
                nn.GroupNorm(self.groups, dtype=self.dtype, name=f"{name}_norm_{i}"),
            )
            for i in range(self.depth)
        ]
