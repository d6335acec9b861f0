"""Random keys from an example's content, for evaluations that need noise and must depend on nothing else."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxmodels.keys import per_example


def content_keys(x: jax.Array) -> jax.Array:
    """One key for each row of x (floats or integers, B first): a function of the row's values alone."""
    kind = jnp.float32 if jnp.issubdtype(x.dtype, jnp.floating) else jnp.int32
    bits_BN = jax.lax.bitcast_convert_type(x.astype(kind), jnp.uint32).reshape(x.shape[0], -1)
    odd_N = 2 * jnp.arange(bits_BN.shape[1], dtype=jnp.uint32) * jnp.uint32(0x9E3779B1) + jnp.uint32(1)
    hash_B = ((bits_BN ^ (bits_BN >> 15)) * odd_N).sum(-1, dtype=jnp.uint32)
    return per_example(jax.random.key(0), hash_B)
