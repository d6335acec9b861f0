"""Top-1 and top-k accuracy of logits, with ties counted by chance.

Dimensions: K classes, after any axes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def first(logits_K: jax.Array, label: jax.Array) -> jax.Array:
    """Whether the largest logit is the label's; of equal ones the first. A row with a NaN is wrong."""
    return (logits_K.argmax(-1) == label) & ~jnp.isnan(logits_K).any(-1)


def among(logits_K: jax.Array, label: jax.Array, count: int) -> jax.Array:
    """The probability that the label is among the `count` largest logits, ties broken by chance; float32.

    With g logits larger than the label's and t equal to it, itself included: (count - g) / t, clipped to 0 to
    1. So K equal logits give count / K. A row with a NaN, and a label that is no class, give 0.
    """
    own_1 = jnp.take_along_axis(logits_K, label[..., None], -1)
    larger, equal = (logits_K > own_1).sum(-1), (logits_K == own_1).sum(-1)
    part = ((count - larger) / jnp.maximum(equal, 1)).clip(0, 1)
    return jnp.where(jnp.isnan(logits_K).any(-1) | (equal == 0), 0.0, part).astype(jnp.float32)
