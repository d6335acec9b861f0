"""Dropout from one key per example, so that no mask depends on devices or micro-batches."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxmodels import keys


def dropout(x: jax.Array, rate: float, keys_B: jax.Array | None) -> jax.Array:
    """x (B first) with each element zeroed with probability rate and the rest scaled by 1 / (1 - rate).

    keys_B: one key per example; None, as in evaluation, changes nothing. This is inverted dropout (Srivastava
    et al., 2014).
    """
    if isinstance(rate, int | float) and not 0 <= rate < 1:
        raise ValueError(
            f"dropout: got rate={rate}; expected 0 to below 1, the fraction that is zeroed. Change the rate."
        )
    if keys_B is None or (isinstance(rate, int | float) and rate == 0):
        return x
    dropped = _bits(keys_B, x.shape) < (jnp.asarray(rate, jnp.float32) * 2.0**32).astype(jnp.uint32)
    return _without(x, dropped, jnp.asarray(1 - rate, x.dtype))


@jax.custom_vjp
def _without(x: jax.Array, dropped: jax.Array, scale: jax.Array) -> jax.Array:
    """x / scale, and -0 where dropped.

    The sign of zero stores the mask, so that the backward pass neither keeps nor recomputes it.
    """
    return jnp.where(dropped, -jnp.zeros((), x.dtype), jnp.where(x == 0, jnp.zeros((), x.dtype), x / scale))


def _forward(
    x: jax.Array, dropped: jax.Array, scale: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = _without(x, dropped, scale)
    return y, (y, scale)


def _backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, None, jax.Array]:
    y, scale = residuals
    dropped = (y == 0) & jnp.signbit(y)
    return jnp.where(dropped, jnp.zeros((), y.dtype), dy / scale), None, jnp.zeros_like(scale)


_without.defvjp(_forward, _backward)


def _bits(keys_B: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random uint32 (B, ...): each element's index, hashed with its example's key.

    jax.random's own bits (Threefry) cost a small perceptron on a CPU more than the rest of its step; these
    cost a twentieth of that.
    """
    key_BN = jax.random.key_data(keys_B)
    first, last = (key_BN[:, n].reshape(-1, *(1,) * (len(shape) - 1)) for n in (0, -1))
    index = jax.lax.iota(jnp.uint32, math.prod(shape[1:])).reshape(1, *shape[1:])
    return _mixed(_mixed(index ^ first) ^ last)


def _mixed(x: jax.Array) -> jax.Array:
    """A permutation of the 32-bit integers in which every bit depends on all.

    C. Wellons, Prospecting for Hash Functions, 2018.
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def fold(keys_B: jax.Array | None, number: int | jax.Array) -> jax.Array | None:
    """New keys, one per example, from keys and a number that identifies their use; None stays None."""
    return None if keys_B is None else keys.fold(keys_B, number)
