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


def placed(
    scores_BV: jax.Array, own_B: jax.Array, candidate_BV: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """(higher, equal): how many candidates score higher than own_B, and how many as high; int32.

    Neither counts the item that own_B is the score of: it must be no candidate. A row with a NaN is placed
    last.
    """
    candidate_BV = jnp.ones(scores_BV.shape, bool) if candidate_BV is None else candidate_BV
    bad_B = jnp.isnan(own_B) | (jnp.isnan(scores_BV) & candidate_BV).any(-1)
    higher_B = (candidate_BV & (scores_BV > own_B[:, None])).sum(-1, dtype=jnp.int32)
    equal_B = (candidate_BV & (scores_BV == own_B[:, None])).sum(-1, dtype=jnp.int32)
    all_B = candidate_BV.sum(-1, dtype=jnp.int32)
    return jnp.where(bad_B, all_B, higher_B), jnp.where(bad_B, 0, equal_B)
