"""Whether the right class comes first, or among the first, of a model's logits.

Dimensions: K classes, behind any axes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def first(logits_K: jax.Array, label: jax.Array) -> jax.Array:
    """Whether the class of the largest logit is the label. Of equal logits the first counts; a row with a NaN is wrong."""
    return (logits_K.argmax(-1) == label) & ~jnp.isnan(logits_K).any(-1)


def among(logits_K: jax.Array, label: jax.Array, count: int) -> jax.Array:
    """How probably the label is among the `count` largest logits, where chance decides between equal ones; float32.

    With g larger logits than the label's and t equal to it, itself among them: (count - g) / t, from 0 to 1.
    So K equal logits give count / K. A row with a NaN and a label that is no class give 0.
    """
    own_1 = jnp.take_along_axis(logits_K, label[..., None], -1)
    larger, equal = (logits_K > own_1).sum(-1), (logits_K == own_1).sum(-1)
    part = ((count - larger) / jnp.maximum(equal, 1)).clip(0, 1)
    return jnp.where(jnp.isnan(logits_K).any(-1) | (equal == 0), 0.0, part).astype(jnp.float32)
