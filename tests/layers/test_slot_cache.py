"""A cache of slots against a KV cache.

Dimensions: B batch, T tokens, H heads, G key/value heads, D width of a head.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.layers.kv_cache import KVCache
from jaxmodels.layers.slot_cache import SlotCache

B, G, D, S = 3, 2, 4, 24


def layer(cache, i: int = 0):
    """One layer's part of a cache of one layer."""
    return jax.tree.map(lambda x: x[i], cache)


attend = jax.jit(lambda cache, *rest: cache.attend(*rest), static_argnums=5)


def with_layers(given):
    return jax.tree.map(lambda x: x[None], given)


@pytest.mark.parametrize("window", [None, 3])
def test_attention_is_that_of_a_kv_cache_whatever_was_settled_and_taken_back(window):
    random = np.random.default_rng(0)

    def tensor(T: int, heads: int):
        return jnp.asarray(random.normal(size=(B, T, heads, D)), jnp.float32)

    plain = KVCache.empty(1, B, S, G, D)
    slots = SlotCache.empty(plain, B + 1).burst(B, 16, 8)
    for T, count, settled in [
        (3, [3, 1, 2], True),
        (1, [1, 0, 1], False),
        (4, [2, 4, 0], True),
        (1, [1] * 3, False),
    ]:
        q, k, v, count_B = tensor(T, 4), tensor(T, G), tensor(T, G), jnp.asarray(count)
        expected, after = attend(layer(plain), q, k, v, count_B, window)
        got, recent = attend(layer(slots), q, k, v, count_B, window)
        real_BT = np.arange(T) < count_B[:, None]
        np.testing.assert_allclose(got[real_BT], expected[real_BT], atol=1e-5)
        plain, slots = with_layers(after), slots.with_recent(with_layers(recent))
        if settled:
            slots = slots.settle().burst(B, 16, 8)
        np.testing.assert_array_equal(slots.length_LB, plain.length_LB)


def test_a_row_goes_into_a_slot_and_recent_tokens_can_be_taken_back():
    random = np.random.default_rng(1)
    row = KVCache.empty(2, 1, S, G, D)
    row = row._replace(
        k_LBSGD=jnp.asarray(random.normal(size=row.k_LBSGD.shape), jnp.float32),
        length_LB=jnp.full((2, 1), 5),
    )
    slots = SlotCache.empty(row, B).insert(row, 1, 8)
    np.testing.assert_array_equal(slots.k_LBGSD[:, 1, :, :8], row.k_LBSGD[:, 0, :8].swapaxes(1, 2))
    assert not slots.k_LBGSD[:, 0].any() and not slots.k_LBGSD[:, 1, :, 8:].any()
    assert slots.length_LB.tolist() == [[0, 5, 0]] * 2
    burst = slots.burst(2, 8, 4)
    assert burst.of_length(jnp.asarray([0, 7])).length_LB.tolist() == [[0, 7]] * 2
    after = burst.of_length(jnp.asarray([0, 7])).settle()
    assert after.length_LB.tolist() == [[0, 7, 0]] * 2
    np.testing.assert_array_equal(after.k_LBGSD[:, 1, :, :5], slots.k_LBGSD[:, 1, :, :5])
