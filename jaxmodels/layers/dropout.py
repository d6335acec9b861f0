"""Dropout from one key per example, so that no mask depends on devices or micro-batches."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxmodels import keys


def dropout(x: jax.Array, rate: float, keys_B: jax.Array | None) -> jax.Array:
    """x (B first) with each element zeroed with probability rate and the rest scaled by 1 / (1 - rate).

    keys_B: one key per example; None, as in evaluation, changes nothing (Srivastava et al., 2014, in its
        inverted form).
    """
    if isinstance(rate, int | float) and not 0 <= rate < 1:
        raise ValueError(
            f"dropout: came a rate of {rate}; wanted one from 0 to below 1, the part that is zeroed"
        )
    if keys_B is None or (isinstance(rate, int | float) and rate == 0):
        return x
    dropped = _bits(keys_B, x.shape) < (jnp.asarray(rate, jnp.float32) * 2.0**32).astype(jnp.uint32)
    return _without(x, dropped, jnp.asarray(1 - rate, x.dtype))


@jax.custom_vjp
def _without(x: jax.Array, dropped: jax.Array, scale: jax.Array) -> jax.Array:
    """x / scale, and -0 in place of what is dropped: the result says which elements those were, so that the backward pass
    neither keeps the mask nor draws it again."""
    return jnp.where(dropped, -jnp.zeros((), x.dtype), jnp.where(x == 0, jnp.zeros((), x.dtype), x / scale))


def _forward(
    x: jax.Array, dropped: jax.Array, scale: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = _without(x, dropped, scale)
    return y, (y, scale)


def _backward(kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, None, jax.Array]:
    y, scale = kept
    dropped = (y == 0) & jnp.signbit(y)
    return jnp.where(dropped, jnp.zeros((), y.dtype), dy / scale), None, jnp.zeros_like(scale)


_without.defvjp(_forward, _backward)


def _bits(keys_B: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random uint32 (B, ...): each element's number, hashed with its example's key.

    jax.random's own (Threefry) cost a small perceptron on a CPU more than the rest of its step; these a
    twentieth of that.
    """
    key_BN = jax.random.key_data(keys_B)
    first, last = (key_BN[:, n].reshape(-1, *(1,) * (len(shape) - 1)) for n in (0, -1))
    number = jax.lax.iota(jnp.uint32, math.prod(shape[1:])).reshape(1, *shape[1:])
    return _mixed(_mixed(number ^ first) ^ last)


def _mixed(x: jax.Array) -> jax.Array:
    """A permutation of the 32-bit integers; every bit depends on all (C. Wellons, Prospecting for Hash Functions, 2018)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def fold(keys_B: jax.Array | None, number: int | jax.Array) -> jax.Array | None:
    """Other keys, one per example, for the use with this number; None stays None."""
    return None if keys_B is None else keys.fold(keys_B, number)
