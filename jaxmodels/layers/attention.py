"""Scaled dot-product attention (arXiv:1706.03762, equation 1).

Dimensions: B batch, T queries, S keys, H heads, D width of a head.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def causal_attention(q_BTHD: jax.Array, k_BSHD: jax.Array, v_BSHD: jax.Array, position: int | jax.Array = 0) -> jax.Array:
    """softmax(q k / sqrt(D)) v, where query t sees keys up to position + t. The softmax is in float32."""
    T, S = q_BTHD.shape[1], k_BSHD.shape[1]
    scores_BHTS = jnp.einsum("BTHD,BSHD->BHTS", q_BTHD, k_BSHD, preferred_element_type=jnp.float32)
    seen_TS = jnp.arange(S) <= position + jnp.arange(T)[:, None]
    scores_BHTS = jnp.where(seen_TS, scores_BHTS / math.sqrt(q_BTHD.shape[-1]), -jnp.inf)
    weights_BHTS = jax.nn.softmax(scores_BHTS, axis=-1).astype(v_BSHD.dtype)
    return jnp.einsum("BHTS,BSHD->BTHD", weights_BHTS, v_BSHD)
