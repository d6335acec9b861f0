"""What a decoder remembers of the tokens it has read, as an explicit argument.

Every array of every cache has layers (or states) first and the batch second, so that beam search can reorder
the rows of any of them. Rows may differ in length: each has its own position to write to.
Dimensions: L layers, B batch, S positions, T tokens, H heads, G key/value heads, D width of
    a head.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmodels.layers.attention import attention


class KVCache(NamedTuple):
    """Keys and values of the tokens so far, and each row's number of tokens; in a layer without the L."""

    k_LBSGD: jax.Array
    v_LBSGD: jax.Array
    length_LB: jax.Array

    @classmethod
    def empty(
        cls, depth: int, batch: int, length: int, heads: int, width: int, dtype: jnp.dtype | None = None
    ) -> KVCache:
        """A cache with a capacity of `length` tokens in each of `batch` rows."""
        keys = jnp.zeros((depth, batch, length, heads, width), dtype or jnp.float32)
        return cls(keys, keys, jnp.zeros((depth, batch), jnp.int32))

    def extend(self, k_BTGD: jax.Array, v_BTGD: jax.Array, count_B: jax.Array) -> KVCache:
        """One layer's cache with T more tokens a row; the next overwrite those after the first count_B."""

        def write(old_SGD, new_TGD, position):
            return jax.lax.dynamic_update_slice_in_dim(
                old_SGD, new_TGD.astype(old_SGD.dtype), position, axis=0
            )

        k, v = (
            jax.vmap(write)(old, new, self.length_LB)
            for old, new in ((self.k_LBSGD, k_BTGD), (self.v_LBSGD, v_BTGD))
        )
        return KVCache(k, v, self.length_LB + count_B)

    def attend(
        self,
        q_BTHD: jax.Array,
        k_BTGD: jax.Array,
        v_BTGD: jax.Array,
        count_B: jax.Array,
        window: int | None = None,
    ) -> tuple[jax.Array, KVCache]:
        """One layer's causal attention of T new tokens to all before and among them, and its cache then."""
        cache = self.extend(k_BTGD, v_BTGD, count_B)
        k_BSGD, v_BSGD, offset_B = cache.k_LBSGD, cache.v_LBSGD, self.length_LB
        return attention(q_BTHD, k_BSGD, v_BSGD, causal=True, window=window, offset_B=offset_B), cache


def positions(
    tokens_BT: jax.Array, cache: KVCache | None = None, segments_BT: jax.Array | None = None
) -> jax.Array:
    """The position of each token in its text, BT: after the cached tokens, or from its segment's start."""
    t_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    if cache is not None:
        return cache.length_LB[0][:, None] + t_BT
    if segments_BT is None:
        return t_BT
    first_BT = jnp.concatenate(
        [jnp.ones_like(segments_BT[:, :1], bool), segments_BT[:, 1:] != segments_BT[:, :-1]], 1
    )
    return t_BT - jax.lax.cummax(jnp.where(first_BT, t_BT, 0), axis=1)
