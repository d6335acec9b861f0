"""The normal distribution: its log density, and values drawn from it. Parameters are (mean, deviation).

Dimensions: P parameters, on the last axis.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def log_density(parameters_P: jax.Array, value: jax.Array) -> jax.Array:
    """ln N(value; mean, deviation²)."""
    mean, deviation = parameters_P[..., 0], parameters_P[..., 1]
    return -0.5 * (((value - mean) / deviation) ** 2 + jnp.log(2 * jnp.pi)) - jnp.log(deviation)


def draw(key: jax.Array, parameters_P: jax.Array) -> jax.Array:
    """A value for each."""
    mean, deviation = parameters_P[..., 0], parameters_P[..., 1]
    return mean + deviation * jax.random.normal(key, mean.shape)
