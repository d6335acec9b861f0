"""Caches of decoders: rows of prompts that are read, and slots of texts that are written.

A prompt's row is the cache that its decoder makes; the slots of a KVCache are a SlotCache. Any other cache is
the state of a recurrent model: it has no positions, its view is all of it, and no token can be taken back.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.interfaces import Decoder
from jaxmodels.layers.kv_cache import KVCache
from jaxmodels.layers.slot_cache import BurstCache, SlotCache


def empty(decoder: Decoder, params: Any, extra: Any, rows: int, length: int) -> Any:
    """A cache that has read nothing, with room for `length` tokens a row."""

    def read(params: Any, extra: Any) -> Any:
        token_BT, count_B = jnp.zeros((rows, 1), jnp.int32), jnp.ones(rows, jnp.int32)
        return decoder.read(params, extra, token_BT, count_B, length)

    _, shapes = jax.eval_shape(read, params, extra)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def slots(row: Any, count: int) -> Any:
    """So many slots for rows like this one."""
    if isinstance(row, KVCache):
        return SlotCache.empty(row, count)
    return jax.tree.map(lambda x: jnp.zeros((len(x), count, *x.shape[2:]), x.dtype), row)


def rewinds(cache: Any) -> bool:
    """Whether tokens can be taken back."""
    return isinstance(cache, KVCache | SlotCache)


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
    """The slots with the first positions of a row in one."""
    if isinstance(cache, SlotCache):
        return cache.insert(row, slot, positions)

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new, slot, axis=1)

    return jax.tree.map(put, cache, row)


def before_burst(cache: Any, rows: int, positions: int, tokens: int) -> Any:
    """The first slots, with attention to so many positions alone and room for so many tokens more."""
    if isinstance(cache, SlotCache):
        return cache.burst(rows, positions, tokens)
    return jax.tree.map(lambda x: x[:, :rows], cache)


def after_call(cache: Any, given: Any) -> Any:
    """The first slots after a decoder's call that gave this for them."""
    return cache.with_recent(given) if isinstance(cache, BurstCache) else given


def after_burst(before: Any, cache: Any) -> Any:
    """All slots as they were, with what a burst wrote in the first."""
    if isinstance(cache, BurstCache):
        return cache.settle()
    return jax.tree.map(partial(jax.lax.dynamic_update_slice_in_dim, start_index=0, axis=1), before, cache)


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
