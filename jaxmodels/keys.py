"""Random keys: the key of a seed, and one key per example.

A seed from 0 to 2^32 - 1 gives jax.random.key(seed). JAX itself ignores all bits above the lowest 32, so 2^32
would give the key of 0. Here the upper word is folded in, and every 64-bit integer has its own key.
"""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LIMIT = 2**63


def words(seed: Any, name: str = "seed") -> np.ndarray:
    """The (upper, lower) 32 bits of an integer, as uint32: for `root` where the seed is a program's input."""
    try:
        number = operator.index(seed)
    except TypeError:
        number = LIMIT
    if isinstance(seed, bool | np.bool_) or not -LIMIT <= number < LIMIT:
        raise ValueError(
            f"{name}: got {seed!r}; expected a whole number of 64 bits, below 2^63. Choose another one."
        )
    return np.array([number >> 32 & 0xFFFFFFFF, number & 0xFFFFFFFF], np.uint32)


def root(seed: Any) -> jax.Array:
    """The key of a seed: a 64-bit integer, its `words`, or a JAX array that holds it."""
    if isinstance(seed, jax.Array) and not seed.ndim:
        return jax.random.key(seed)
    upper, lower = seed if isinstance(seed, jax.Array) else words(seed)
    key = jax.random.key(lower)
    if not isinstance(upper, jax.Array):
        return jax.random.fold_in(key, upper) if upper else key
    folded, plain = jax.random.key_data(jax.random.fold_in(key, upper)), jax.random.key_data(key)
    return jax.random.wrap_key_data(jnp.where(upper > 0, folded, plain), impl=jax.random.key_impl(key))


def per_example(key: jax.Array, numbers_B: jax.Array) -> jax.Array:
    """One key for each example: `key` with a number folded in, such as the row in the global batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers_B)


def fold(keys_B: jax.Array, number: int | jax.Array) -> jax.Array:
    """Other keys, one for each example, for the use that has this number."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys_B, number)
