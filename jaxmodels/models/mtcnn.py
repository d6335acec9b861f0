"""MTCNN: a cascade of three networks that propose, refine and mark faces (arXiv:1604.02878).

Images are (x - 127.5) / 128 of bytes.
Dimensions: B batch, H W image, h w map, C channels, F features.
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
from jaxmodels.layers.pool import ceil_padding, max_pool


class FacePrediction(NamedTuple):
    """The prediction for a window; of the first network, for each window."""

    face: jax.Array  # probability
    # (…, 4): offsets of x0 y0 x1 y1 of the face from the window's, in widths and heights of the window
    edges: jax.Array
    # (…, 10): x of eyes, nose and corners of the mouth, left first, then their y, in the same units
    points: jax.Array | None


class PReLU(Model):
    """max(x, 0) + slope min(x, 0), with a slope per channel (arXiv:1502.01852)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The activations, in the shape of x."""
        slope_C = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1],))
        return jnp.where(x > 0, x, x * slope_C.astype(x.dtype))


class MTCNN(Model):
    """Maps windows to a FacePrediction; without a dense layer, images to one per window, at stride 2."""

    channels: Sequence[int]
    kernels: Sequence[int]
    pools: Sequence[int]  # windows of pooling at stride 2 after each convolution; 0 is none
    size: int  # of a window
    dense: int = 0  # 0: convolutions only, for images of any size from a window on
    marks: bool = False  # whether it predicts points
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> FacePrediction:
        """The predictions; nothing is random, so keys_B is unused."""
        H, W = x_BHWC.shape[1:3]
        if min(H, W) < self.size or (self.dense and max(H, W) > self.size):
            raise ValueError(f"MTCNN: got windows of {H}x{W}; expected {self.size}x{self.size}. Resize them.")
        x = x_BHWC
        for i, (channels, kernel, pool) in enumerate(
            zip(self.channels, self.kernels, self.pools, strict=True), 1
        ):
            x = Conv(channels, (kernel, kernel), padding="VALID", dtype=self.dtype, name=f"conv_{i}")(x)
            x = PReLU(name=f"slope_{i}")(x)
            if pool:
                h, w = x.shape[1:3]
                x = max_pool(x, pool, 2, (ceil_padding(h, pool, 2), ceil_padding(w, pool, 2)))
        if self.dense:
            x = x.swapaxes(1, 2).reshape(x.shape[0], -1)  # column by column, as in the published weights
            x = PReLU(name="slope")(nn.Dense(self.dense, dtype=self.dtype, name="dense")(x))
        last = partial(nn.Dense, dtype=self.dtype)
        face = nn.softmax(last(2, name="face")(x).astype(jnp.float32))[..., 1]
        return FacePrediction(
            face, last(4, name="edges")(x), last(10, name="points")(x) if self.marks else None
        )


pnet = partial(MTCNN, (10, 16, 32), (3, 3, 3), (2, 0, 0), 12)
rnet = partial(MTCNN, (28, 48, 64), (3, 3, 2), (3, 3, 0), 24, dense=128)
onet = partial(MTCNN, (32, 64, 64, 128), (3, 3, 3, 2), (3, 3, 2, 0), 48, dense=256, marks=True)
