"""Grouped-query causal self-attention with rotary positions (arXiv:2305.13245).

Dimensions: B batch, T tokens, S positions in the cache, H heads, G key/value heads, D width of a head,
    M width.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.attention import attention
from jaxmodels.layers.kv_cache import KVCache
from jaxmodels.layers.rope import rotate


class GroupedAttention(nn.Module):
    """(y_BTM, cache) from x_BTM; the residual and its normalisation are the caller's."""

    heads: int
    key_heads: int
    head_width: int
    biases: tuple[str, ...] = ()  # the matrices with a bias, of "query", "key", "value" and "out"
    head_norm: float | None = (
        None  # epsilon of an RMS norm of queries and keys (arXiv:2302.05442); None: no norm
    )
    window: int | None = None
    last: Any = nn.initializers.normal(0.02)  # initializer of the output matrix
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, x_BTM, rotation: tuple[jax.Array, jax.Array], cache: KVCache | None, count_B, segments_BT
    ):
        """rotation: cosines and sines of the positions; the rest as in DecoderOnly; one layer's cache."""
        B, T, M = x_BTM.shape
        small = nn.initializers.normal(0.02)

        def dense(features: int, name: str, init: Any = small) -> nn.Dense:
            return nn.Dense(
                features, use_bias=name in self.biases, kernel_init=init, dtype=self.dtype, name=name
            )

        def heads(n: int, name: str) -> jax.Array:
            return dense(n * self.head_width, name)(x_BTM).reshape(B, T, n, self.head_width)

        q, k, v = heads(self.heads, "query"), heads(self.key_heads, "key"), heads(self.key_heads, "value")
        if self.head_norm is not None:
            q = nn.RMSNorm(epsilon=self.head_norm, dtype=self.dtype, name="norm_query")(q)
            k = nn.RMSNorm(epsilon=self.head_norm, dtype=self.dtype, name="norm_key")(k)
        q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is None:
            segments = None if segments_BT is None else (segments_BT, segments_BT)
            y_BTHD = attention(q, k, v, causal=True, window=self.window, segments=segments)
        else:
            y_BTHD, cache = cache.attend(q, k, v, count_B, self.window)
        y_BTN = y_BTHD.reshape(B, T, -1).astype(x_BTM.dtype)  # a cache may be wider
        return dense(M, "out", self.last)(y_BTN), cache
