"""How many frames each phoneme lasts: predictors of log durations, and phonemes repeated as often.

The stochastic predictor is a flow of neural splines (VITS, arXiv:2106.06103, section 2.2.2; arXiv:1906.04032)
read backwards: noise becomes log durations. Its training, with variational dequantisation, is not here.
Dimensions: B batch, S phonemes, T frames, C channels, K bins of a spline, G features of a condition.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model

norm = partial(nn.LayerNorm, epsilon=1e-5)
gelu = partial(nn.gelu, approximate=False)
LEAST = 1e-3  # width, height and slope of a bin


def repeated(x_BSC: jax.Array, duration_BS: jax.Array, frames: int) -> tuple[jax.Array, jax.Array]:
    """Each phoneme's features for as many frames as it lasts (BTC), and segments (BT), 0 beyond the last.

    Frames beyond the room there is are lost (FastSpeech's length regulator, arXiv:1905.09263).
    """
    end_BS = jnp.cumsum(duration_BS, 1)
    time_T = jnp.arange(frames)
    index_BT = jax.vmap(partial(jnp.searchsorted, side="right"), (0, None))(end_BS, time_T)
    segments_BT = (time_T < end_BS[:, -1:]).astype(jnp.int32)
    index_BT = jnp.minimum(index_BT, x_BSC.shape[1] - 1)
    y_BTC = jnp.take_along_axis(x_BSC, index_BT[..., None], 1)
    return jnp.where(segments_BT[..., None] > 0, y_BTC, 0), segments_BT


class DurationPredictor(Model):
    """Log durations (BS) by two convolutions, each rectified and normalised (arXiv:2006.04558)."""

    width: int
    kernel: int = 3  # odd
    dropout: float = 0.0
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def __call__(self, x_BSC, real_BS1, condition_BG=None, keys_B=None):
        """Log durations (BS), 0 where there is no phoneme."""
        if condition_BG is not None:
            x_BSC += nn.Dense(x_BSC.shape[-1], name="condition")(condition_BG)[:, None]
        pad = self.kernel // 2
        for i in range(2):
            x_BSC = nn.Conv(
                self.width, (self.kernel,), padding=((pad, pad),), dtype=self.dtype, name=f"conv_{i}"
            )(x_BSC * real_BS1)
            x_BSC = norm(dtype=self.dtype, name=f"norm_{i}")(nn.relu(x_BSC))
            x_BSC = dropout(x_BSC, self.dropout, fold(keys_B, i))
        x_BS1 = nn.Dense(1, dtype=self.dtype, name="out")(x_BSC * real_BS1)
        return (x_BS1 * real_BS1)[..., 0]


class Separable(Model):
    """Dilated convolutions of each channel alone, each followed by a mixing of the channels."""

    kernel: int
    depth: int

    @nn.compact
    def __call__(self, x_BSC, real_BS1):
        """x_BSC after all layers; the dilation of layer i is kernel^i."""
        C = x_BSC.shape[-1]
        for i in range(self.depth):
            dilation = self.kernel**i
            pad = self.kernel // 2 * dilation
            y = nn.Conv(
                C,
                (self.kernel,),
                kernel_dilation=dilation,
                padding=((pad, pad),),
                feature_group_count=C,
                name=f"depthwise_{i}",
            )(x_BSC * real_BS1)
            y = nn.Dense(C, name=f"pointwise_{i}")(gelu(norm(name=f"norm_depthwise_{i}")(y)))
            x_BSC += gelu(norm(name=f"norm_pointwise_{i}")(y))
        return x_BSC * real_BS1


class SplineCoupling(Model):
    """A spline of one number per phoneme, made from the other number and from what conditions it."""

    kernel: int
    depth: int
    bins: int
    bound: float

    @nn.compact
    def __call__(self, x_BS2, condition_BSC, real_BS1):
        """The inverse of the coupling."""
        C = condition_BSC.shape[-1]
        h = nn.Dense(C, name="first")(x_BS2[..., :1]) + condition_BSC
        h = Separable(self.kernel, self.depth, name="layers")(h, real_BS1)
        h = nn.Dense(3 * self.bins - 1, name="out")(h) * real_BS1
        width, height = h[..., : self.bins], h[..., self.bins : 2 * self.bins]
        scale = jnp.asarray(C, h.dtype) ** -0.5
        y_BS = spline_inverse(
            x_BS2[..., 1], width * scale, height * scale, h[..., 2 * self.bins :], self.bound
        )
        return jnp.stack([x_BS2[..., 0], y_BS], -1) * real_BS1


def spline_inverse(
    y: jax.Array, width_K: jax.Array, height_K: jax.Array, slope_K: jax.Array, bound: float
) -> jax.Array:
    """The x whose monotonic rational-quadratic spline is y (arXiv:1906.04032, equations 6 to 8).

    width_K, height_K: of K bins from -bound to bound, before their softmax; slope_K: at the K - 1 knots
    between them, before their softplus. Beyond the bounds the spline is the identity.
    """
    K = width_K.shape[-1]
    knot_x, knot_y = (
        2 * bound * jnp.cumsum(LEAST + (1 - LEAST * K) * jax.nn.softmax(part), -1) - bound
        for part in (width_K, height_K)
    )
    edge = [(0, 0)] * (knot_x.ndim - 1)
    knot_x = jnp.pad(knot_x[..., :-1], [*edge, (1, 0)], constant_values=-bound)  # the left knot of each bin
    knot_y = jnp.pad(knot_y[..., :-1], [*edge, (1, 0)], constant_values=-bound)
    next_x = jnp.pad(knot_x[..., 1:], [*edge, (0, 1)], constant_values=bound)
    next_y = jnp.pad(knot_y[..., 1:], [*edge, (0, 1)], constant_values=bound)
    slope = jnp.pad(LEAST + nn.softplus(slope_K), [*edge, (1, 1)], constant_values=1.0)
    inside = jnp.abs(y) <= bound
    within = jnp.clip(y, -bound, bound)
    bin_1 = jnp.sum(within[..., None] >= knot_y, -1, keepdims=True) - 1

    def of_bin(values: jax.Array) -> jax.Array:
        return jnp.take_along_axis(values, bin_1, -1)[..., 0]

    x_0, y_0 = of_bin(knot_x), of_bin(knot_y)
    w, h = of_bin(next_x) - x_0, of_bin(next_y) - y_0
    low, high = of_bin(slope[..., :-1]), of_bin(slope[..., 1:])
    mean = h / w
    above = within - y_0
    curved = above * (low + high - 2 * mean)
    a, b, c = h * (mean - low) + curved, h * low - curved, -mean * above
    root = 2 * c / (-b - jnp.sqrt(jnp.maximum(b * b - 4 * a * c, 0)))
    return jnp.where(inside, root * w + x_0, y)


class StochasticDurationPredictor(Model):
    """Log durations (BS) from noise, two numbers for each phoneme."""

    kernel: int = 3
    depth: int = 3  # layers of every stack
    couplings: int = 3  # as many as generation has; training has one more, which generation skips
    bins: int = 10
    bound: float = 5.0

    @nn.compact
    def __call__(self, x_BSC, real_BS1, noise_BS2, condition_BG=None):
        """Log durations (BS), 0 where there is no phoneme."""
        C = x_BSC.shape[-1]
        x = nn.Dense(C, name="first")(x_BSC)
        if condition_BG is not None:
            x += nn.Dense(C, name="condition")(condition_BG)[:, None]
        x = Separable(self.kernel, self.depth, name="layers")(x, real_BS1)
        x = nn.Dense(C, name="last")(x) * real_BS1
        z_BS2 = noise_BS2.astype(x.dtype)
        for i in reversed(range(self.couplings)):
            coupling = SplineCoupling(self.kernel, self.depth, self.bins, self.bound, name=f"coupling_{i}")
            z_BS2 = coupling(z_BS2[..., ::-1], x, real_BS1)
        z_BS2 = z_BS2[..., ::-1]
        shift = self.param("shift", nn.initializers.zeros, (2,))
        log_scale = self.param("log_scale", nn.initializers.zeros, (2,))
        return ((z_BS2 - shift) * jnp.exp(-log_scale) * real_BS1)[..., 0]
