"""PatchTST: a transformer over patches of a series, each series by itself (arXiv:2211.14730).

Each history is standardised by its own mean and deviation, which the forecast gets back (arXiv:2107.02907,
without its learned scale). Differs from the authors' code, as transformers' PatchTSTForPrediction does:
layers do not pass on their attention scores. Keys have no bias, as a softmax removes it.
Dimensions: B batch, L steps of history, H of the horizon, C series, E = BC rows, N S patches, P steps of a
patch, D width, A heads.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.batch_norm import BatchNorm
from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model

Norm = Literal["batch", "layer"]
# PyTorch's, and so the authors': uniform, as wide as 1 / √(inputs).
UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Block(Model):
    """Attention between the patches of a series, then a network at each; each is normalised coming out."""

    heads: int
    hidden_width: int
    norm: Norm = "batch"
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_END: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """x after this block. keys_B: of the batch's examples, each of E / B rows, while training."""
        E, N, D = x_END.shape
        dense = partial(nn.Dense, kernel_init=UNIFORM, dtype=self.dtype)
        drop = partial(_dropout, rate=self.dropout)
        heads = (E, N, self.heads, D // self.heads)
        q = dense(D, name="query")(x_END).reshape(heads)
        k = dense(D, use_bias=False, name="key")(x_END).reshape(heads)
        v = dense(D, name="value")(x_END).reshape(heads)
        scores_EANS = jnp.einsum("ENAD,ESAD->EANS", q, k).astype(jnp.float32) / heads[-1] ** 0.5
        weights_EANS = nn.softmax(scores_EANS, -1).astype(v.dtype)
        mixed_END = jnp.einsum("EANS,ESAD->ENAD", weights_EANS, v).reshape(E, N, D)
        y_END = drop(dense(D, name="out")(mixed_END), keys_B=fold(keys_B, 0))
        x_END = self._normalised(x_END + y_END, "norm_attention", keys_B)
        y_END = nn.gelu(dense(self.hidden_width, name="up")(x_END), approximate=False)
        y_END = dense(D, name="down")(drop(y_END, keys_B=fold(keys_B, 1)))
        y_END = drop(y_END, keys_B=fold(keys_B, 2))
        return self._normalised(x_END + y_END, "norm_mlp", keys_B)

    def _normalised(self, x_END: jax.Array, name: str, keys_B: jax.Array | None) -> jax.Array:
        if self.norm == "layer":
            return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)(x_END)
        statistics: dict[str, Any] = {"use_running_average": keys_B is None, "momentum": 0.9, "epsilon": 1e-5}
        return BatchNorm(**statistics, dtype=self.dtype, name=name)(x_END)


class PatchTST(Model):
    """Maps the last L values of each series to the next H; all series share the parameters."""

    horizon: int
    patch: int = 16
    stride: int = 8
    padding: int = 8  # how often the last value is repeated behind the history
    width: int = 128
    depth: int = 3
    heads: int = 16
    hidden_width: int = 256
    norm: Norm = "batch"
    dropout: float = 0.2
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    @nn.compact
    def __call__(self, history_BLC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """The forecast, BHC. keys_B: one random key per example while training, None to evaluate."""
        B, L, C = history_BLC.shape
        if self.width % self.heads or L + self.padding < self.patch:
            raise ValueError(
                f"PatchTST: got width {self.width}, {self.heads} heads and {L} steps, padded by "
                f"{self.padding}; expected a multiple of the heads and at least a patch, {self.patch}. "
                "Change one."
            )
        x_BLC = history_BLC.astype(jnp.float32)
        mean_B1C = x_BLC.mean(1, keepdims=True)
        deviation_B1C = jnp.sqrt(x_BLC.var(1, keepdims=True) + 1e-5)
        x_BLC = ((x_BLC - mean_B1C) / deviation_B1C).astype(history_BLC.dtype)
        x_BLC = jnp.pad(x_BLC, ((0, 0), (0, self.padding), (0, 0)), mode="edge")

        N = (x_BLC.shape[1] - self.patch) // self.stride + 1
        first = x_BLC.shape[1] - self.patch - (N - 1) * self.stride  # the oldest steps may not fill a patch
        at_NP = first + jnp.arange(N)[:, None] * self.stride + jnp.arange(self.patch)
        x_ENP = x_BLC.swapaxes(1, 2).reshape(B * C, -1)[:, at_NP]
        dense = partial(nn.Dense, kernel_init=UNIFORM, dtype=self.dtype)
        x_END = dense(self.width, name="embed")(x_ENP)
        uniform = nn.initializers.uniform(0.04)
        position_ND = self.param("position", lambda *a: uniform(*a) - 0.02, (N, self.width))
        x_END = _dropout(x_END + position_ND.astype(x_END.dtype), self.dropout, fold(keys_B, 2**16))
        for n in range(self.depth):
            block = Block(
                self.heads, self.hidden_width, self.norm, self.dropout, self.dtype, name=f"block_{n}"
            )
            x_END = block(x_END, fold(keys_B, n))
        forecast_EH = dense(self.horizon, name="head")(x_END.reshape(B * C, -1))
        forecast_BHC = forecast_EH.reshape(B, C, -1).swapaxes(1, 2).astype(jnp.float32)
        return forecast_BHC * deviation_B1C + mean_B1C


def _dropout(x_END: jax.Array, rate: float, keys_B: jax.Array | None) -> jax.Array:
    """Dropout of rows that belong to B examples, one after the other."""
    if keys_B is None:
        return x_END
    return dropout(x_END.reshape(len(keys_B), -1), rate, keys_B).reshape(x_END.shape)


patchtst_small = partial(PatchTST, width=16, heads=4, hidden_width=128, dropout=0.3)
