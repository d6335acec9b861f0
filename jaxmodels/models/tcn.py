"""Temporal convolutional network: dilated causal convolutions in residual blocks (arXiv:1803.01271).

Block n has two convolutions of dilation 2^n, with weight normalisation (arXiv:1602.07868); an output sees
itself and 2 (kernel - 1) (2^depth - 1) steps before. As in the authors' code, dropout zeroes a channel at all
steps, and what a block adds and the sum both go through ReLU.
Dimensions: B batch, T steps, C channels or series, W width, K kernel, L steps of history, H of the horizon,
E = BC rows, Q outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model


class CausalConv(Model):
    """A convolution that sees no later step: kernel = scale v / |v|."""

    width: int
    kernel: int
    dilation: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """BTW."""
        shape = (self.kernel, x_BTC.shape[-1], self.width)
        v_KCW = self.param("kernel", nn.initializers.normal(0.01), shape)
        scale_W = self.param("scale", lambda *_: jnp.linalg.norm(v_KCW.reshape(-1, self.width), axis=0))
        bias_W = self.param("bias", nn.initializers.zeros, (self.width,))
        norm_W = jnp.linalg.norm(v_KCW.astype(jnp.float32).reshape(-1, self.width), axis=0)
        kernel_KCW = (v_KCW * (scale_W / norm_W)).astype(v_KCW.dtype)
        x_BTC, kernel_KCW, bias_W = nn.dtypes.promote_dtype(x_BTC, kernel_KCW, bias_W, dtype=self.dtype)
        y_BTW = jax.lax.conv_general_dilated(
            x_BTC,
            kernel_KCW,
            window_strides=(1,),
            padding=[((self.kernel - 1) * self.dilation, 0)],
            rhs_dilation=(self.dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        return y_BTW + bias_W


class TCN(Model):
    """Maps a sequence to an output at each step, which no later step changes."""

    outputs: int
    widths: Sequence[int] = (25,) * 8  # of the blocks
    kernel: int = 7
    dropout: float = 0.0
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def __call__(self, x_BTC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Outputs BTQ. keys_B: one random key per example, of as many rows each, while training."""
        small = nn.initializers.normal(0.01)
        for n, width in enumerate(self.widths):
            conv = partial(CausalConv, width, self.kernel, 2**n, self.dtype)
            y_BTW = x_BTC
            for i in range(2):
                y_BTW = nn.relu(conv(name=f"conv_{n}_{i}")(y_BTW))
                y_BTW = _dropped(y_BTW, self.dropout, fold(keys_B, 2 * n + i))
            if x_BTC.shape[-1] != width:
                x_BTC = nn.Dense(width, kernel_init=small, dtype=self.dtype, name=f"shortcut_{n}")(x_BTC)
            x_BTC = nn.relu(x_BTC + y_BTW)
        return nn.Dense(self.outputs, kernel_init=small, dtype=self.dtype, name="head")(x_BTC)


class TCNForecaster(Model):
    """Maps the last L values of each series to the next H; all series share the parameters.

    Each history is standardised by its own mean and deviation, which the forecast gets back.
    """

    horizon: int
    outputs: int = 1  # of each value, such as quantiles
    widths: Sequence[int] = (32,) * 5
    kernel: int = 3
    dropout: float = 0.1
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def __call__(self, history_BLC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """The forecast, BHC, or BHCQ of several outputs. keys_B: one key per example while training."""
        B, L, C = history_BLC.shape
        x_BLC = history_BLC.astype(jnp.float32)
        mean_B1C = x_BLC.mean(1, keepdims=True)
        deviation_B1C = jnp.sqrt(x_BLC.var(1, keepdims=True) + 1e-5)
        x_BLC = ((x_BLC - mean_B1C) / deviation_B1C).astype(history_BLC.dtype)
        x_EL1 = x_BLC.swapaxes(1, 2).reshape(B * C, L, 1)
        body = TCN(
            self.horizon * self.outputs, self.widths, self.kernel, self.dropout, self.dtype, name="body"
        )
        last_EZ = body(x_EL1, keys_B)[:, -1].astype(jnp.float32)
        forecast_BHCQ = last_EZ.reshape(B, C, self.horizon, self.outputs).swapaxes(1, 2)
        forecast_BHCQ = forecast_BHCQ * deviation_B1C[..., None] + mean_B1C[..., None]
        return forecast_BHCQ[..., 0] if self.outputs == 1 else forecast_BHCQ


def _dropped(x_ETW: jax.Array, rate: float, keys_B: jax.Array | None) -> jax.Array:
    """Dropout of whole channels, of rows that belong to B examples, one after the other."""
    if keys_B is None:
        return x_ETW
    E, _, W = x_ETW.shape
    ones_BZ = jnp.ones((len(keys_B), E // len(keys_B) * W), x_ETW.dtype)
    return x_ETW * dropout(ones_BZ, rate, keys_B).reshape(E, 1, W)
