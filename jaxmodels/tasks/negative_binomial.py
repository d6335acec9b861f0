"""The negative binomial distribution of counts that vary more than Poisson's (arXiv:1704.04110, section 3.1).

Parameters are (mean, shape): the variance is mean + shape mean².
Dimensions: P parameters, on the last axis.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln


def log_density(parameters_P: jax.Array, value: jax.Array) -> jax.Array:
    """ln of the probability of a whole number from 0."""
    mean, shape = parameters_P[..., 0], parameters_P[..., 1]
    count = 1 / shape
    ways = gammaln(value + count) - gammaln(value + 1) - gammaln(count)
    return ways - count * jnp.log1p(shape * mean) - value * jnp.log1p(1 / (shape * mean))


def draw(key: jax.Array, parameters_P: jax.Array) -> jax.Array:
    """A count for each, float32: Poisson's, whose rate is drawn from a gamma distribution."""
    mean, shape = parameters_P[..., 0], parameters_P[..., 1]
    of_rate, of_count = jax.random.split(key)
    rate = jax.random.gamma(of_rate, 1 / shape, mean.shape) * shape * mean
    return jax.random.poisson(of_count, rate).astype(jnp.float32)
