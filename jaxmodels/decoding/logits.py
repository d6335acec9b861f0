"""Logits processing before a token is drawn: top-k, top-p, min-p and repetition penalty.

Dimensions: B batch, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def penalise_repetition(logits_BV: jax.Array, seen_BV: jax.Array, penalty: Any) -> jax.Array:
    """Logits of the tokens that have occurred divided by the penalty where positive, else multiplied by it.

    From arXiv:1909.05858.
    """
    return jnp.where(seen_BV, jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty), logits_BV)


def filter_logits(logits_BV: jax.Array, *, top_k: Any = 0, top_p: Any = 1.0, min_p: Any = 0.0) -> jax.Array:
    """Logits with -inf for every token that one of the filters removes; the likeliest token always stays.

    top_k keeps the k likeliest; 0 keeps all. top_p keeps the nucleus, the smallest set of likeliest tokens
    whose probability, among the k, reaches top_p (arXiv:1904.09751). min_p keeps those at least min_p times
    as probable as the likeliest (arXiv:2407.01082).
    """
    V = logits_BV.shape[-1]
    sorted_BV = -jnp.sort(-logits_BV, axis=-1)
    rank_V = jnp.arange(V)
    in_top_k_V = (rank_V < top_k) | (jnp.asarray(top_k) == 0)
    p_BV = jax.nn.softmax(jnp.where(in_top_k_V, sorted_BV, -jnp.inf), -1)
    probability_before_BV = jnp.cumsum(p_BV, -1) - p_BV
    kept_BV = in_top_k_V & (probability_before_BV < top_p) & (p_BV >= min_p * p_BV[:, :1]) | (rank_V == 0)
    floor_B1 = jnp.where(kept_BV, sorted_BV, jnp.inf).min(-1, keepdims=True)
    return jnp.where(logits_BV < floor_B1, -jnp.inf, logits_BV)
