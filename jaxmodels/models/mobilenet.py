"""MobileNet v2 and v3: networks of inverted residuals for small devices (arXiv:1801.04381, arXiv:1905.02244).

Dimensions: B batch, H W image, h w map, C channels, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.conv_norm import ConvNorm
from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model


class Inverted(NamedTuple):
    """One inverted residual: a row of the papers' tables."""

    kernel: int
    inner: int  # channels of the expansion
    out: int
    stride: int = 1
    excite: bool = False  # squeeze and excitation (arXiv:1709.01507)
    hard: bool = False  # hard swish in place of the network's plain activation


class Block(Model):
    """1 x 1 expansion, depthwise convolution, 1 x 1 projection; added to an input of the same shape."""

    row: Inverted
    plain: Callable[[jax.Array], jax.Array]  # the activation unless the row says hard
    epsilon: float = 1e-5
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None) -> jax.Array:
        """The block's features."""
        row, C = self.row, x_BHWC.shape[-1]
        act = nn.hard_swish if row.hard else self.plain
        layer: Callable = partial(ConvNorm, epsilon=self.epsilon, dtype=self.dtype)
        y = x_BHWC
        if row.inner != C:
            y = act(layer(row.inner, 1, name="wide")(y, keys_B))
        y = act(layer(row.inner, row.kernel, row.stride, row.inner, name="filter")(y, keys_B))
        if row.excite:
            gate_BF = nn.relu(
                nn.Dense(rounded(row.inner / 4), dtype=self.dtype, name="squeeze")(y.mean((1, 2)))
            )
            gate_BF = nn.hard_sigmoid(nn.Dense(row.inner, dtype=self.dtype, name="excite")(gate_BF))
            y = y * gate_BF[:, None, None]
        y = layer(row.out, 1, name="narrow")(y, keys_B)
        return x_BHWC + y if x_BHWC.shape == y.shape else y


def rounded(width: float) -> int:
    """The multiple of 8 nearest to this width, at least nine tenths of it."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * width else nearest + 8


class MobileNet(Model):
    """Maps images to class logits."""

    classes: int  # 0: the pooled features, after the dense layer where there is one
    rows: Sequence[Inverted]
    stem: int  # channels of the first convolution
    last: int  # channels of the last convolution, of 1 x 1
    dense: int = 0  # width of a layer before the head
    hard: bool = False  # hard swish in stem and last layers, and ReLU in rows that are not hard; else ReLU6
    dropout: float = 0.2  # before the head
    epsilon: float = 1e-5  # of the normalisations
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    def setup(self):
        """Creates the dense layers."""
        if self.dense:
            self.hidden = nn.Dense(self.dense, dtype=self.dtype)
        if self.classes:
            self.head = nn.Dense(self.classes, dtype=self.dtype)

    @nn.compact
    def features(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> dict[str, jax.Array]:
        """Feature maps: "stem", "last" and, between them, the last of each resolution as "stage_1", ..."""
        layer: Callable = partial(ConvNorm, epsilon=self.epsilon, dtype=self.dtype)
        act, plain = (nn.hard_swish, nn.relu) if self.hard else (nn.relu6, nn.relu6)
        x = act(layer(self.stem, 3, 2, name="stem")(x_BHWC, keys_B))
        maps, stage = {"stem": x}, 1
        for i, row in enumerate(self.rows):
            stage += i > 0 and row.stride > 1
            x = Block(row, plain, self.epsilon, self.dtype, name=f"block_{i}")(x, keys_B)
            maps[f"stage_{stage}"] = x
        maps["last"] = act(layer(self.last, 1, name="last")(x, keys_B))
        return maps

    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Class logits; keys_B: one random key per example while training."""
        x_BF = self.features(x_BHWC, keys_B)["last"].mean((1, 2))
        if self.dense:
            x_BF = nn.hard_swish(self.hidden(x_BF))
        return self.head(dropout(x_BF, self.dropout, fold(keys_B, 0))) if self.classes else x_BF


def _second() -> tuple[Inverted, ...]:
    """arXiv:1801.04381, table 2: expansion, channels, repetitions, stride of the first block."""
    rows, C = [], 32
    table = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    for expansion, out, count, stride in table:
        for i in range(count):
            rows.append(Inverted(3, expansion * C, out, stride if i == 0 else 1))
            C = out
    return tuple(rows)


LARGE = (  # arXiv:1905.02244, table 1
    Inverted(3, 16, 16),
    Inverted(3, 64, 24, 2),
    Inverted(3, 72, 24),
    Inverted(5, 72, 40, 2, True),
    *(Inverted(5, 120, 40, 1, True),) * 2,
    Inverted(3, 240, 80, 2, hard=True),
    Inverted(3, 200, 80, hard=True),
    *(Inverted(3, 184, 80, hard=True),) * 2,
    Inverted(3, 480, 112, 1, True, True),
    Inverted(3, 672, 112, 1, True, True),
    Inverted(5, 672, 160, 2, True, True),
    *(Inverted(5, 960, 160, 1, True, True),) * 2,
)
SMALL = (  # table 2
    Inverted(3, 16, 16, 2, True),
    Inverted(3, 72, 24, 2),
    Inverted(3, 88, 24),
    Inverted(5, 96, 40, 2, True, True),
    *(Inverted(5, 240, 40, 1, True, True),) * 2,
    Inverted(5, 120, 48, 1, True, True),
    Inverted(5, 144, 48, 1, True, True),
    Inverted(5, 288, 96, 2, True, True),
    *(Inverted(5, 576, 96, 1, True, True),) * 2,
)
third = partial(MobileNet, stem=16, hard=True, epsilon=1e-3)
mobilenet_v2 = partial(MobileNet, rows=_second(), stem=32, last=1280)
mobilenet_v3_large = partial(third, rows=LARGE, last=960, dense=1280)
mobilenet_v3_small = partial(third, rows=SMALL, last=576, dense=1024)
