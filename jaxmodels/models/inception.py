"""Inception: several convolutions side by side, joined along the channels.

GoogLeNet    arXiv:1409.4842, with batch normalisation and, as in the published weights, 3 x 3 convolutions in
             place of 5 x 5; googlenet_28 is a reduced size for images of 28 x 28.
InceptionV3  arXiv:1512.00567: factorised convolutions, label smoothing by the task.

Both have auxiliary heads for training, by the method with_auxiliary. Their published weights expect images as
(x - 0.5) / 0.5.
Dimensions: B batch, H W image, h w map, C channels, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.conv_norm import ConvNorm
from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model
from jaxmodels.layers.pool import adaptive_mean_pool, ceil_padding, max_pool

Size = tuple[int, int]
SMALL = nn.initializers.truncated_normal(0.1)


def _layer(features: int, kernel: Size = (1, 1), **options: Any) -> Callable[[jax.Array, Any], jax.Array]:
    """Convolution without bias, batch normalisation, ReLU."""
    layer = ConvNorm(features, kernel, epsilon=1e-3, kernel_init=SMALL, **options)
    return lambda x_BHWC, keys_B: nn.relu(layer(x_BHWC, keys_B))


TALL, WIDE, ONE, THREE, FIVE = (7, 1), (1, 7), (1, 1), (3, 3), (5, 5)


class Block(Model):
    """Branches of convolutions beside one that pools first, joined along the channels.

    branches: the convolutions of each, of which the last has the block's stride; a tuple of convolutions in
    place of the last one runs them in parallel. pooled: features of the 1 x 1 convolution after 3 x 3
    pooling; 0 is none.
    """

    branches: Sequence[Sequence[Any]]
    pooled: int
    maximum: bool = False  # max pooling, else mean pooling (which counts the zeros of the padding)
    stride: int = 1  # 2: without padding, so that height and width are halved
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None) -> jax.Array:
        """The branches' features."""
        out = []
        for i, steps in enumerate(self.branches):
            x = x_BHWC
            for j, step in enumerate(steps):
                last = j == len(steps) - 1 and self.stride > 1
                options: Any = {"stride": self.stride if last else 1, "padded": not last, "dtype": self.dtype}
                if isinstance(step[0], int):
                    x = _layer(*step, **options, name=f"branch_{i}_{j}")(x, keys_B)
                else:
                    both = [
                        _layer(*s, **options, name=f"branch_{i}_{j}{'ab'[k]}")(x, keys_B)
                        for k, s in enumerate(step)
                    ]
                    x = jnp.concatenate(both, -1)
            out.append(x)
        pads = ((1, 1), (1, 1)) if self.stride == 1 else ((0, 0), (0, 0))
        if self.maximum:
            x = max_pool(x_BHWC, 3, self.stride, pads)
        else:
            x = nn.avg_pool(x_BHWC, (3, 3), (self.stride, self.stride), pads)
        out.append(_layer(self.pooled, dtype=self.dtype, name="pooled")(x, keys_B) if self.pooled else x)
        return jnp.concatenate(out, -1)


def _halved(x_BHWC: jax.Array, kernel: int = 3) -> jax.Array:
    """Max pooling at stride 2, with windows that reach beyond the far edges."""
    H, W = x_BHWC.shape[1:3]
    return max_pool(x_BHWC, kernel, 2, (ceil_padding(H, kernel, 2), ceil_padding(W, kernel, 2)))


def google(one: int, narrow: int, three: int, narrower: int, five: int, pooled: int) -> Callable[..., Block]:
    """A block of GoogLeNet: a row of the paper's table 1."""
    return partial(
        Block,
        (((one, ONE),), ((narrow, ONE), (three, THREE)), ((narrower, ONE), (five, THREE))),
        pooled,
        True,
    )


class GoogLeNet(Model):
    """Maps images to class logits."""

    classes: int  # 0: the pooled features
    auxiliary: bool = False  # two more heads, for training only
    stages: Sequence[Sequence[Callable[..., Block]]] = (
        (google(64, 96, 128, 16, 32, 32), google(128, 128, 192, 32, 96, 64)),
        (
            google(192, 96, 208, 16, 48, 64),
            google(160, 112, 224, 24, 64, 64),
            google(128, 128, 256, 24, 64, 64),
            google(112, 144, 288, 32, 64, 64),
            google(256, 160, 320, 32, 128, 128),
        ),
        (google(256, 160, 320, 32, 128, 128), google(384, 192, 384, 48, 128, 128)),
    )
    stem: Sequence[int] = (64, 64, 192)  # features of 7 x 7 at stride 2, 1 x 1 and 3 x 3; if one, of a 3 x 3
    dropout: float = 0.2
    auxiliary_dropout: float = 0.7
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    def setup(self):
        """Creates the heads."""
        if self.classes:
            self.head = nn.Dense(self.classes, dtype=self.dtype)
        if self.auxiliary:
            if len(self.stages) < 2 or len(self.stages[1]) < 4:
                raise ValueError(
                    "GoogLeNet: got auxiliary heads for a second stage of less than four blocks; expected "
                    "the published stages. Leave auxiliary out."
                )
            self.auxiliary_1 = _Auxiliary(self.classes, self.auxiliary_dropout, self.dtype)
            self.auxiliary_2 = _Auxiliary(self.classes, self.auxiliary_dropout, self.dtype)

    @nn.compact
    def _maps(self, x_BHWC, keys_B):
        """Feature maps by stage, and the auxiliary heads' inputs: blocks 1 and 4 of the second stage."""
        layer = partial(_layer, dtype=self.dtype)
        if len(self.stem) == 1:
            x = layer(self.stem[0], THREE, name="stem_1")(x_BHWC, keys_B)
        else:
            x = _halved(layer(self.stem[0], (7, 7), stride=2, name="stem_1")(x_BHWC, keys_B))
            x = layer(self.stem[2], THREE, name="stem_3")(
                layer(self.stem[1], name="stem_2")(x, keys_B), keys_B
            )
        maps, early = {"stem": x}, []
        for stage, blocks in enumerate(self.stages, 1):
            x = _halved(x, 3 if stage < 3 else 2)
            for i, block in enumerate(blocks):
                x = block(dtype=self.dtype, name=f"stage_{stage}_block_{i}")(x, keys_B)
                if stage == 2 and i in (0, 3):
                    early.append(x)
            maps[f"stage_{stage}"] = x
        return maps, early

    def features(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> dict[str, jax.Array]:
        """Feature maps by stage: "stem", "stage_1", "stage_2", "stage_3"."""
        return self._maps(x_BHWC, keys_B)[0]

    def with_auxiliary(
        self, x_BHWC: jax.Array, keys_B: jax.Array | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """(logits, logits of the auxiliary heads)."""
        maps, early = self._maps(x_BHWC, keys_B)
        x_BF = dropout(maps[f"stage_{len(self.stages)}"].mean((1, 2)), self.dropout, fold(keys_B, 0))
        others: tuple[jax.Array, ...] = ()
        if self.auxiliary:
            others = self.auxiliary_1(early[0], keys_B, 1), self.auxiliary_2(early[1], keys_B, 2)
        return (self.head(x_BF) if self.classes else x_BF), others

    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Class logits; keys_B: one random key per example while training."""
        return self.with_auxiliary(x_BHWC, keys_B)[0]


class _Auxiliary(Model):
    """A head on an early map, averaged to 4 x 4 (arXiv:1409.4842, section 5)."""

    classes: int
    dropout: float
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BHWC, keys_B, number: int):
        x = _layer(128, dtype=self.dtype, name="conv")(adaptive_mean_pool(x_BHWC, 4), keys_B)
        x = nn.relu(nn.Dense(1024, dtype=self.dtype, name="dense")(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(
            dropout(x, self.dropout, fold(keys_B, number))
        )


def _a(pooled: int) -> Callable[..., Block]:
    """arXiv:1512.00567, figure 5."""
    branches = (((64, ONE),), ((48, ONE), (64, FIVE)), ((64, ONE), (96, THREE), (96, THREE)))
    return partial(Block, branches, pooled)


def _c(n: int) -> Callable[..., Block]:
    """Figure 6: 7 x 7 as 1 x 7 and 7 x 1."""
    long = ((n, ONE), (n, TALL), (n, WIDE), (n, TALL), (192, WIDE))
    return partial(Block, (((192, ONE),), ((n, ONE), (n, WIDE), (192, TALL)), long), 192)


SIDES = ((384, (1, 3)), (384, (3, 1)))
_B = partial(Block, (((384, THREE),), ((64, ONE), (96, THREE), (96, THREE))), 0, True, 2)  # halves the map
_D = partial(
    Block, (((192, ONE), (320, THREE)), ((192, ONE), (192, WIDE), (192, TALL), (192, THREE))), 0, True, 2
)
_E = partial(Block, (((320, ONE),), ((384, ONE), SIDES), ((448, ONE), (384, THREE), SIDES)), 192)  # figure 7
V3: Sequence[Sequence[Callable[..., Block]]] = (
    (_a(32), _a(64), _a(64)),
    (_B, _c(128), _c(160), _c(160), _c(192)),
    (_D, _E, _E),
)


class InceptionV3(Model):
    """Maps images of at least 75 x 75 (published: 299 x 299) to class logits."""

    classes: int  # 0: the pooled features
    auxiliary: bool = False  # a second head, for training only
    dropout: float = 0.5
    dtype: jnp.dtype | None = None

    def setup(self):
        """Creates the heads."""
        if self.classes:
            self.head = nn.Dense(self.classes, dtype=self.dtype)
        if self.auxiliary:
            layer = partial(ConvNorm, epsilon=1e-3, kernel_init=SMALL, dtype=self.dtype)
            self.auxiliary_conv_1, self.auxiliary_conv_2 = layer(128, 1), layer(768, FIVE, padded=False)
            self.auxiliary_head = nn.Dense(self.classes, dtype=self.dtype)

    @nn.compact
    def features(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> dict[str, jax.Array]:
        """Feature maps by stage: "stem", "stage_1", "stage_2", "stage_3"."""
        if min(x_BHWC.shape[1:3]) < 75:
            raise ValueError(
                f"InceptionV3: got images of {x_BHWC.shape[1]}x{x_BHWC.shape[2]}; expected at least 75x75 "
                "(published: 299x299). Resize the images."
            )
        layer = partial(_layer, dtype=self.dtype)
        x = layer(32, THREE, stride=2, padded=False, name="stem_1")(x_BHWC, keys_B)
        x = layer(64, THREE, name="stem_3")(layer(32, THREE, padded=False, name="stem_2")(x, keys_B), keys_B)
        x = max_pool(x, 3, 2)
        x = layer(192, THREE, padded=False, name="stem_5")(layer(80, name="stem_4")(x, keys_B), keys_B)
        x = max_pool(x, 3, 2)
        maps = {"stem": x}
        for stage, blocks in enumerate(V3, 1):
            for i, block in enumerate(blocks):
                x = block(dtype=self.dtype, name=f"stage_{stage}_block_{i}")(x, keys_B)
            maps[f"stage_{stage}"] = x
        return maps

    def with_auxiliary(
        self, x_BHWC: jax.Array, keys_B: jax.Array | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """(logits, logits of the auxiliary head); the auxiliary head needs images of about 299 x 299."""
        maps = self.features(x_BHWC, keys_B)
        x_BF = dropout(maps["stage_3"].mean((1, 2)), self.dropout, fold(keys_B, 0))
        others: tuple[jax.Array, ...] = ()
        if self.auxiliary:
            x = nn.avg_pool(maps["stage_2"], (5, 5), (3, 3))
            x = nn.relu(self.auxiliary_conv_2(nn.relu(self.auxiliary_conv_1(x, keys_B)), keys_B))
            others = (self.auxiliary_head(x.mean((1, 2))),)
        return (self.head(x_BF) if self.classes else x_BF), others

    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Class logits; keys_B: one random key per example while training."""
        return self.with_auxiliary(x_BHWC, keys_B)[0]


googlenet = partial(GoogLeNet)
googlenet_28 = partial(  # for images of 28 x 28: a plain stem and a quarter of the width
    GoogLeNet,
    stem=(32,),
    stages=(
        (google(16, 24, 32, 4, 8, 8), google(32, 32, 48, 8, 24, 16)),
        (google(48, 24, 52, 4, 12, 16), google(40, 28, 56, 6, 16, 16), google(64, 40, 80, 8, 32, 32)),
        (google(64, 40, 80, 8, 32, 32),),
    ),
)
inception_v3 = partial(InceptionV3)
