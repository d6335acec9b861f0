"""Stochastic depth from one key per example (arXiv:1603.09382)."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def drop_path(x: jax.Array, rate: float | jax.Array, keys_B: jax.Array | None) -> jax.Array:
    """A residual branch x (B first) with each example zeroed with probability rate, the rest / (1 - rate).

    keys_B: one key per example; None, as in evaluation, changes nothing. rate may be traced, so it may differ
    between the layers of a scan.
    """
    if keys_B is None or (isinstance(rate, int | float) and rate == 0):
        return x
    keep_B = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate))(keys_B)
    keep = keep_B.reshape(-1, *(1,) * (x.ndim - 1))
    return jnp.where(keep, x / (1 - rate), jnp.zeros((), x.dtype)).astype(x.dtype)
