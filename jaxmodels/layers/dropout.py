"""Dropout from one key per example, so that no mask depends on devices or micro-batches."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, keys_B: jax.Array | None) -> jax.Array:
    """x (B first) with each element zeroed with probability rate and the rest scaled by 1 / (1 - rate).

    keys_B: one key per example; None, as in evaluation, changes nothing (Srivastava et al., 2014, in its inverted form).
    """
    if isinstance(rate, int | float) and not 0 <= rate < 1:
        raise ValueError(f"dropout: came a rate of {rate}; wanted one from 0 to below 1, the part that is zeroed")
    if keys_B is None or (isinstance(rate, int | float) and rate == 0):
        return x
    keep = jax.vmap(lambda key, example: jax.random.bernoulli(key, 1 - rate, example.shape))(keys_B, x)
    return jnp.where(keep, x / (1 - rate), jnp.zeros((), x.dtype)).astype(x.dtype)


def fold(keys_B: jax.Array | None, number: int | jax.Array) -> jax.Array | None:
    """Other keys, one per example, for the use with this number; None stays None."""
    return None if keys_B is None else jax.vmap(jax.random.fold_in, (0, None))(keys_B, number)
