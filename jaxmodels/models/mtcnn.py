"""The three networks that find faces one after another: propose, refine, mark (arXiv:1604.02878).

Images are (x - 127.5) / 128, of bytes. Dimensions: B batch, H W image, h w map, C channels, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.conv import Conv
from jaxmodels.layers.model import Model
from jaxmodels.layers.pool import max_pool, over


class Said(NamedTuple):
    """What a network says of a window, of each window for the first."""

    face: jax.Array  # probability
    edges: (
        jax.Array
    )  # (…, 4): how far x0 y0 x1 y1 of the face are from the window's, in its widths and heights
    points: (
        jax.Array | None
    )  # (…, 10): x of eyes, nose and corners of the mouth, left first, then their y, in its sizes


class PReLU(Model):
    """max(x, 0) + slope min(x, 0), a slope for each channel (arXiv:1502.01852)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """As many features."""
        slope_C = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1],))
        return jnp.where(x > 0, x, x * slope_C.astype(x.dtype))


class MTCNN(Model):
    """Maps windows to Said; without dense layers, images of at least a window to maps of Said, for every other pixel."""

    channels: Sequence[int]
    kernels: Sequence[int]
    pools: Sequence[int]  # windows of pooling at stride 2 after each convolution; 0 is none
    size: int  # of a window
    dense: int = 0  # 0: convolutions alone
    marks: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> Said:
        """What is said of them; keys change nothing."""
        H, W = x_BHWC.shape[1:3]
        if min(H, W) < self.size or (self.dense and max(H, W) > self.size):
            raise ValueError(f"MTCNN: came windows of {H}x{W}; wanted {self.size}x{self.size}: resize them")
        x = x_BHWC
        for i, (channels, kernel, pool) in enumerate(
            zip(self.channels, self.kernels, self.pools, strict=True), 1
        ):
            x = Conv(channels, (kernel, kernel), padding="VALID", dtype=self.dtype, name=f"conv_{i}")(x)
            x = PReLU(name=f"slope_{i}")(x)
            if pool:
                h, w = x.shape[1:3]
                x = max_pool(x, pool, 2, (over(h, pool, 2), over(w, pool, 2)))
        if self.dense:
            x = x.swapaxes(1, 2).reshape(len(x), -1)  # column by column, as the published weights want it
            x = PReLU(name="slope")(nn.Dense(self.dense, dtype=self.dtype, name="dense")(x))
        last = partial(nn.Dense, dtype=self.dtype)
        face = nn.softmax(last(2, name="face")(x).astype(jnp.float32))[..., 1]
        return Said(face, last(4, name="edges")(x), last(10, name="points")(x) if self.marks else None)


pnet = partial(MTCNN, (10, 16, 32), (3, 3, 3), (2, 0, 0), 12)
rnet = partial(MTCNN, (28, 48, 64), (3, 3, 2), (3, 3, 0), 24, dense=128)
onet = partial(MTCNN, (32, 64, 64, 128), (3, 3, 3, 2), (3, 3, 2, 0), 48, dense=256, marks=True)
