"""A KV cache for many short calls: what was read before stays where it is, new tokens gather beside it.

A KVCache goes through a model as a whole and comes out as a new one, which costs a copy of all its positions
for every token. Here a call changes the recent tokens alone, in a BurstCache of the first slots; settle()
moves them to the others, once for many calls. The heads come before the positions, as products over positions
want them.
Dimensions: L layers, B batch, S positions, N recent tokens, T tokens of a call, G key/value heads, H query
heads, R = H / G, D width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmodels.layers.blockwise_attention import finite
from jaxmodels.layers.kv_cache import KVCache


class SlotCache(NamedTuple):
    """Keys and values of the settled tokens, and each slot's number of them."""

    k_LBGSD: jax.Array
    v_LBGSD: jax.Array
    length_LB: jax.Array

    @classmethod
    def empty(cls, like: KVCache, slots: int) -> SlotCache:
        """A cache with as many positions as this one of other rows."""
        L, _, S, G, D = like.k_LBSGD.shape
        k, v = (jnp.zeros((L, slots, G, S, D), like.k_LBSGD.dtype) for _ in range(2))
        return cls(k, v, jnp.zeros((L, slots), jnp.int32))

    def insert(self, row: KVCache, slot: jax.Array, positions: int) -> SlotCache:
        """The cache with the first positions of a cache of one row in a slot."""

        def put(old_LBGSD, new_L1SGD):
            new_L1GSD = new_L1SGD[:, :, :positions].transpose(0, 1, 3, 2, 4)
            return jax.lax.dynamic_update_slice(old_LBGSD, new_L1GSD, (0, slot, 0, 0, 0))

        length_LB = jax.lax.dynamic_update_slice(self.length_LB, row.length_LB, (0, slot))
        return SlotCache(put(self.k_LBGSD, row.k_LBSGD), put(self.v_LBGSD, row.v_LBSGD), length_LB)

    def burst(self, rows: int, positions: int, tokens: int) -> BurstCache:
        """The first slots, for calls of so many tokens in all. The positions must hold all their tokens."""
        L, _, G, _, D = self.k_LBGSD.shape
        k, v = (jnp.zeros((L, rows, G, tokens, D), self.k_LBGSD.dtype) for _ in range(2))
        return BurstCache(*self, Recent(k, v, self.length_LB[:, :rows]), positions)


class Recent(NamedTuple):
    """Keys and values of the tokens since the last settling, and each row's number of all tokens."""

    k_LBGND: jax.Array
    v_LBGND: jax.Array
    length_LB: jax.Array


@partial(
    jax.tree_util.register_dataclass,
    meta_fields=["positions"],
    data_fields=["k_LBGSD", "v_LBGSD", "past_LB", "recent"],
)
@dataclass(frozen=True)
class BurstCache:
    """All slots' settled tokens, and the first slots' recent ones; in a layer without the L.

    positions: the first ones alone are attended to.
    """

    k_LBGSD: jax.Array
    v_LBGSD: jax.Array
    past_LB: jax.Array
    recent: Recent
    positions: int

    @property
    def length_LB(self) -> jax.Array:
        """Each row's number of tokens."""
        return self.recent.length_LB

    def with_recent(self, recent: Recent) -> BurstCache:
        """The cache after a call, which gives the recent tokens."""
        return replace(self, recent=recent)

    def of_length(self, length_B: jax.Array) -> BurstCache:
        """The cache with so many tokens in each row: recent ones are taken back."""
        length_LB = jnp.broadcast_to(length_B, self.length_LB.shape).astype(jnp.int32)
        return self.with_recent(self.recent._replace(length_LB=length_LB))

    def settle(self) -> SlotCache:
        """The slots whose recent tokens are settled. Each has room for N positions after its tokens."""
        rows = self.length_LB.shape[1]

        def row(b, past):
            def put(old_LBGSD, new_LBGND):
                new_L1GND = jax.lax.dynamic_slice_in_dim(new_LBGND, b, 1, axis=1)
                return jax.lax.dynamic_update_slice(old_LBGSD, new_L1GND, (0, b, 0, self.past_LB[0, b], 0))

            return put(past[0], self.recent.k_LBGND), put(past[1], self.recent.v_LBGND)

        k, v = jax.lax.fori_loop(0, rows, row, (self.k_LBGSD, self.v_LBGSD))
        return SlotCache(k, v, self.past_LB.at[:, :rows].set(self.length_LB))

    def attend(
        self,
        q_BTHD: jax.Array,
        k_BTGD: jax.Array,
        v_BTGD: jax.Array,
        count_B: jax.Array,
        window: int | None = None,
    ) -> tuple[jax.Array, Recent]:
        """One layer's attention of T new tokens to all before and among them, and the recent tokens then."""
        B, T, H, D = q_BTHD.shape
        G, R = k_BTGD.shape[2], H // k_BTGD.shape[2]
        past_B, length_B = self.past_LB[:B], self.recent.length_LB
        keys, values = (x[:B, :, : self.positions] for x in (self.k_LBGSD, self.v_LBGSD))

        def write(old_GND, new_TGD, position):
            return jax.lax.dynamic_update_slice_in_dim(
                old_GND, new_TGD.swapaxes(0, 1).astype(old_GND.dtype), position, axis=1
            )

        new_keys, new_values = (
            jax.vmap(write)(old, new, length_B - past_B)
            for old, new in ((self.recent.k_LBGND, k_BTGD), (self.recent.v_LBGND, v_BTGD))
        )
        q_BGtD = q_BTHD.reshape(B, T, G, R, D).transpose(0, 2, 3, 1, 4).reshape(B, G, R * T, D)
        product = partial(jnp.einsum, preferred_element_type=jnp.float32)
        at_BT = length_B[:, None] + jnp.arange(T)

        def scores(keys_BGSD, position_BS, exists_BS):
            distance_BTS = at_BT[:, :, None] - position_BS[:, None]
            allowed = (distance_BTS >= 0) & exists_BS[:, None]
            if window is not None:
                allowed &= distance_BTS < window
            found = product("BGtD,BGSD->BGtS", q_BGtD, keys_BGSD) / math.sqrt(D)
            allowed = jnp.broadcast_to(allowed[:, None, None], (B, G, R, *allowed.shape[1:]))
            return jnp.where(allowed.reshape(found.shape), found, -jnp.inf)

        S, N = keys.shape[2], new_keys.shape[2]
        old = jnp.broadcast_to(jnp.arange(S), (B, S))
        old_BGtS = scores(keys, old, old < past_B[:, None])
        new_BGtN = scores(new_keys, past_B[:, None] + jnp.arange(N), jnp.ones((B, N), bool))
        highest = finite(jnp.maximum(old_BGtS.max(-1), new_BGtN.max(-1)))[..., None]
        old_BGtS, new_BGtN = jnp.exp(old_BGtS - highest), jnp.exp(new_BGtN - highest)
        total = old_BGtS.sum(-1) + new_BGtN.sum(-1)
        y_BGtD = product("BGtS,BGSD->BGtD", old_BGtS.astype(values.dtype), values)
        y_BGtD += product("BGtN,BGND->BGtD", new_BGtN.astype(values.dtype), new_values)
        y_BGtD /= jnp.where(total > 0, total, 1.0)[..., None]
        y_BTHD = y_BGtD.reshape(B, G, R, T, D).transpose(0, 3, 1, 2, 4).reshape(B, T, H, D)
        return y_BTHD.astype(values.dtype), Recent(new_keys, new_values, length_B + count_B)
