"""The random key that a seed stands for: the same everywhere that a seed is taken.

A seed from 0 to 2^32 - 1 gives jax.random.key(seed). JAX itself leaves out what is above 32 bits, so that
2^32 would begin as 0 does: here the upper word is folded in, and every whole number of 64 bits has a key of
its own.
"""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LIMIT = 2**63


def words(seed: Any, name: str = "seed") -> np.ndarray:
    """(upper, lower) 32 bits of a whole number, uint32: what `root` takes where seeds are inputs of a program."""
    try:
        number = operator.index(seed)
    except TypeError:
        number = LIMIT
    if isinstance(seed, bool | np.bool_) or not -LIMIT <= number < LIMIT:
        raise ValueError(
            f"{name}: got {seed!r}; expected a whole number of 64 bits, below 2^63. Choose another one"
        )
    return np.array([number >> 32 & 0xFFFFFFFF, number & 0xFFFFFFFF], np.uint32)


def root(seed: Any) -> jax.Array:
    """The key of a seed: a whole number of 64 bits, or its `words`, or an array of JAX's that holds it."""
    if isinstance(seed, jax.Array) and not seed.ndim:
        return jax.random.key(seed)
    upper, lower = seed if isinstance(seed, jax.Array) else words(seed)
    key = jax.random.key(lower)
    if not isinstance(upper, jax.Array):
        return jax.random.fold_in(key, upper) if upper else key
    folded = jax.random.key_data(jax.random.fold_in(key, upper))
    return jax.random.wrap_key_data(
        jnp.where(upper > 0, folded, jax.random.key_data(key)), impl=jax.random.key_impl(key)
    )
