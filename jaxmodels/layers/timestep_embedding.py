"""Embedding of a diffusion time by sines and cosines.

Dimensions: B batch, D width.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def timestep_embedding(time_B: jax.Array, width: int) -> jax.Array:
    """Sines and cosines (B, width) of a time from 0 to 1, as of positions 0 to 1000.

    From arXiv:1706.03762, section 3.5.
    """
    rate_D = jnp.exp(-math.log(10_000) * jnp.arange(width // 2) / (width // 2))
    angle_BD = 1000 * time_B.astype(jnp.float32)[:, None] * rate_D
    return jnp.concatenate([jnp.cos(angle_BD), jnp.sin(angle_BD)], -1)
