"""Drafts of a text's next tokens: from the text itself, or by a smaller model.

Dimensions: B slots, C capacity, K drafted tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmodels.interfaces import Decoder

MATCHED = 3  # tokens of a text's end that are looked up, at most


class Draft(NamedTuple):
    """A smaller model with the same tokens, which drafts so many tokens at a time (arXiv:2211.17192)."""

    decoder: Decoder
    params: Any
    extra: Any
    tokens: int = 4


def look_up(context_BC: jax.Array, last_B: jax.Array, K: int) -> jax.Array:
    """The K tokens that followed the last tokens where they occurred before (prompt lookup decoding).

    last_B: position of the last token. The longest match of at most MATCHED tokens counts, of equal ones the
    newest; a text that repeats itself goes on repeating. Without a match they are tokens of no meaning.
    """
    C = context_BC.shape[1]
    position_C = jnp.arange(C)
    matched_BC = jnp.zeros(context_BC.shape, jnp.int32)
    equal_BC = position_C < last_B[:, None]
    for back in range(MATCHED):
        token_B1 = jnp.take_along_axis(context_BC, jnp.maximum(last_B - back, 0)[:, None], 1)
        shifted_BC = jnp.pad(context_BC, ((0, 0), (back, 0)), constant_values=-1)[:, :C]
        equal_BC &= (shifted_BC == token_B1) & (last_B[:, None] >= back)
        matched_BC += equal_BC
    best_B = jnp.argmax(matched_BC * C + position_C * (matched_BC > 0), 1)
    period_B = jnp.maximum(last_B - best_B, 1)
    at_BK = best_B[:, None] + 1 + jnp.arange(K) % period_B[:, None]
    return jnp.take_along_axis(context_BC, jnp.minimum(at_BK, C - 1), 1)
