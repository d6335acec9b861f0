"""Mu-law companding (ITU-T G.711's continuous form): samples in levels that are finer near silence.

y = sign(x) log(1 + mu |x|) / log(1 + mu),  mu = levels - 1
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def mu_law(x: jax.Array, levels: int = 256) -> jax.Array:
    """Samples (-1 to 1; others are clipped) as levels, int32, 0 to levels - 1."""
    _check(levels)
    x = jnp.clip(x.astype(jnp.float32), -1, 1)
    y = jnp.sign(x) * jnp.log1p((levels - 1) * jnp.abs(x)) / np.float32(np.log(levels))
    return jnp.floor((y + 1) / 2 * (levels - 1) + 0.5).astype(jnp.int32)


def inverse_mu_law(level: jax.Array, levels: int = 256) -> jax.Array:
    """The samples (float32, -1 to 1) that levels stand for."""
    _check(levels)
    y = 2 * level.astype(jnp.float32) / (levels - 1) - 1
    return jnp.sign(y) * jnp.expm1(jnp.abs(y) * np.float32(np.log(levels))) / (levels - 1)


def _check(levels: int) -> None:
    if levels < 2:
        raise ValueError(f"mu_law: got levels={levels}; expected at least 2. Raise it.")
