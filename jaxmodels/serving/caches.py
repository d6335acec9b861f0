"""Rows of a decoder's cache: a view of its first positions, a row put into a slot, tokens taken back.

A KVCache has a position for each token. Any other cache is the state of a recurrent model: it has no
positions, its view is all of it, and no token can be taken back.
Dimensions: L layers, B rows, S positions, G key/value heads, D width of a head.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.interfaces import Decoder
from jaxmodels.layers.kv_cache import KVCache


def empty(decoder: Decoder, params: Any, extra: Any, rows: int, length: int) -> Any:
    """A cache that has read nothing, with room for `length` tokens a row."""

    def read(params: Any, extra: Any) -> Any:
        token_BT, count_B = jnp.zeros((rows, 1), jnp.int32), jnp.ones(rows, jnp.int32)
        return decoder.read(params, extra, token_BT, count_B, length)

    _, shapes = jax.eval_shape(read, params, extra)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def rewinds(cache: Any) -> bool:
    """Whether tokens can be taken back."""
    return isinstance(cache, KVCache)


def view(cache: Any, positions: int) -> Any:
    """The first positions alone: attention to fewer is faster."""
    if not isinstance(cache, KVCache) or positions == cache.k_LBSGD.shape[2]:
        return cache
    k, v = (jax.lax.slice_in_dim(x, 0, positions, axis=2) for x in (cache.k_LBSGD, cache.v_LBSGD))
    return KVCache(k, v, cache.length_LB)


def put_back(cache: Any, part: Any) -> Any:
    """The cache with a view of it that was changed."""
    if not isinstance(cache, KVCache) or part.k_LBSGD.shape == cache.k_LBSGD.shape:
        return part
    k, v = (
        jax.lax.dynamic_update_slice_in_dim(old, new, 0, axis=2)
        for old, new in ((cache.k_LBSGD, part.k_LBSGD), (cache.v_LBSGD, part.v_LBSGD))
    )
    return KVCache(k, v, part.length_LB)


def insert(cache: Any, row: Any, slot: Any, positions: int) -> Any:
    """The cache with the first positions of a cache of one row in a slot."""

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new, slot, axis=1)

    if not isinstance(cache, KVCache):
        return jax.tree.map(put, cache, row)
    part = view(row, positions)
    zero = jnp.zeros((), jnp.int32)
    k, v = (
        jax.lax.dynamic_update_slice(old, new, (zero, slot, zero, zero, zero))
        for old, new in ((cache.k_LBSGD, part.k_LBSGD), (cache.v_LBSGD, part.v_LBSGD))
    )
    return KVCache(k, v, put(cache.length_LB, row.length_LB))


def of_length(cache: Any, length_B: jax.Array) -> Any:
    """The cache with so many tokens in each row: the next overwrite those that are taken back."""
    length_LB = jnp.broadcast_to(length_B, cache.length_LB.shape).astype(cache.length_LB.dtype)
    return cache._replace(length_LB=length_LB)


def take(cache: Any, start: Any, tokens: int) -> Any:
    """What a cache of one row holds of `tokens` tokens from position start; of a state, all of it."""
    if not isinstance(cache, KVCache):
        return jax.tree.map(jnp.copy, cache)  # else the block would be the row itself, which is donated
    return tuple(
        jax.lax.dynamic_slice_in_dim(x, start, tokens, axis=2) for x in (cache.k_LBSGD, cache.v_LBSGD)
    )


def give(cache: Any, block: Any, start: Any) -> Any:
    """The cache of one row after reading the tokens of a block, which take gave, at position start."""
    if not isinstance(cache, KVCache):
        return jax.tree.map(jnp.copy, block)
    k, v = (
        jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=2)
        for old, new in zip((cache.k_LBSGD, cache.v_LBSGD), block, strict=True)
    )
    return KVCache(k, v, jnp.full_like(cache.length_LB, start + block[0].shape[2]))


def clear(cache: Any) -> Any:
    """The cache before the first token: what it holds is overwritten, or must be zero."""
    if isinstance(cache, KVCache):
        return cache._replace(length_LB=jnp.zeros_like(cache.length_LB))
    return jax.tree.map(jnp.zeros_like, cache)
