"""Mixtures of logistic distributions over samples of 16 bits (PixelCNN++, arXiv:1701.05517, section 2.1).

The probability of a sample is that of its interval of width 2 / (levels - 1); the outermost intervals reach
to infinity. Dimensions: K components; the last axis of parameters, 3K, holds logits, means, log scales.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

LEAST = -9.0  # of log scales: about a third of the width of an interval of 16 bits would be -11


def _parts(parameters: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    logits, mean, log_scale = jnp.split(parameters.astype(jnp.float32), 3, -1)
    return logits, mean, jnp.maximum(log_scale, LEAST)


def log_probability(parameters: jax.Array, x: jax.Array, levels: int = 2**16) -> jax.Array:
    """Natural logarithm of the probability of samples x (-1 to 1), of the shape of x."""
    logits, mean, log_scale = _parts(parameters)
    half, off = 1 / (levels - 1), x.astype(jnp.float32)[..., None] - mean
    upper, lower = (off + half) * jnp.exp(-log_scale), (off - half) * jnp.exp(-log_scale)
    # log(sigmoid(upper) - sigmoid(lower)) without cancellation
    width = jnp.maximum(upper - lower, 1e-20)
    inside = jax.nn.log_sigmoid(upper) + jax.nn.log_sigmoid(-lower) + jnp.log(-jnp.expm1(-width))
    x = x[..., None]
    of_component = jnp.where(
        x <= -1 + half,
        jax.nn.log_sigmoid(upper),
        jnp.where(x >= 1 - half, jax.nn.log_sigmoid(-lower), inside),
    )
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) + of_component, -1)


def draw(parameters: jax.Array, key: jax.Array, temperature: float = 1.0) -> jax.Array:
    """A sample (-1 to 1) of each mixture. temperature: multiplies scales and divides logits; 0 is the mean of
    the likeliest component."""
    logits, mean, log_scale = _parts(parameters)
    component_key, noise_key = jax.random.split(key)
    logits = logits if temperature == 0 else logits / temperature
    chance = 0.0 if temperature == 0 else jax.random.gumbel(component_key, logits.shape)
    chosen = jnp.argmax(logits + chance, -1)[..., None]
    mean, log_scale = (jnp.take_along_axis(y, chosen, -1)[..., 0] for y in (mean, log_scale))
    u = jax.random.uniform(noise_key, mean.shape, minval=1e-5, maxval=1 - 1e-5)
    noise = jnp.exp(log_scale) * (jnp.log(u) - jnp.log1p(-u))
    return jnp.clip(mean + np.float32(temperature) * noise, -1, 1)
