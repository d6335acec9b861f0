"""Student's t distribution, whose tails bear outliers: its log density, and values drawn from it.

Parameters are (location, scale, degrees of freedom).
Dimensions: P parameters, on the last axis.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln


def log_density(parameters_P: jax.Array, value: jax.Array) -> jax.Array:
    """ln of the density of location + scale T, where T has a t distribution."""
    location, scale, freedom = (parameters_P[..., n] for n in range(3))
    constant = gammaln((freedom + 1) / 2) - gammaln(freedom / 2) - 0.5 * jnp.log(freedom * jnp.pi)
    squared = ((value - location) / scale) ** 2
    return constant - jnp.log(scale) - (freedom + 1) / 2 * jnp.log1p(squared / freedom)


def draw(key: jax.Array, parameters_P: jax.Array) -> jax.Array:
    """A value for each."""
    location, scale, freedom = (parameters_P[..., n] for n in range(3))
    return location + scale * jax.random.t(key, freedom, location.shape)
