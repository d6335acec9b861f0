"""Pooling to a size, as PyTorch's adaptive pooling does it.

Dimensions: B batch, h w map, C channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def means(x_BhwC: jax.Array, size: int) -> jax.Array:
    """The map brought to size x size: each place the mean of its part, parts overlap where the size does not divide."""

    def along(x: jax.Array, axis: int) -> jax.Array:
        n = x.shape[axis]
        parts = [jax.lax.slice_in_dim(x, i * n // size, -(-(i + 1) * n // size), axis=axis).mean(axis) for i in range(size)]
        return jnp.stack(parts, axis)

    return x_BhwC if x_BhwC.shape[1:3] == (size, size) else along(along(x_BhwC, 1), 2)
