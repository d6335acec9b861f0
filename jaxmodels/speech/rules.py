"""Which token may come next in a text with times (arXiv:2212.04356, section 2.3 and its reference code).

Times come in pairs, the end of one segment and the start of the next, and never fall; the first token is a
time of at most 1 s; where times together are likelier than every token of text, a time comes. Each row of a
batch has its own text so far.
Dimensions: B rows, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.speech.symbols import Symbols

FIRST = 50  # of the first time, at most, in steps of 0.02 s


class Written(NamedTuple):
    """What the rules know of each row's text; the rows are the second axis, as in every cache."""

    count_1B: jax.Array
    last_1B: jax.Array  # token
    before_1B: jax.Array  # the token before it
    time_1B: jax.Array  # the newest time's token, 0 without one

    @classmethod
    def nothing(cls, rows: int) -> Written:
        """Before the first token."""
        return cls(*[jnp.zeros((1, rows), jnp.int32)] * 4)

    def then(self, token_B: jax.Array, symbols: Symbols) -> Written:
        """After one more token."""
        token_1B = token_B[None].astype(jnp.int32)
        time_1B = jnp.where(token_1B >= symbols.times, token_1B, self.time_1B)
        return Written(self.count_1B + 1, token_1B, self.last_1B, time_1B)


def allowed(logits_BV: jax.Array, written: Written, symbols: Symbols, *, times: bool = True) -> jax.Array:
    """The logits in float32, with -inf for what may not come next. times: whether the text has any."""
    V = logits_BV.shape[-1]
    token_V, first_B1 = jnp.arange(V), (written.count_1B[0] == 0)[:, None]
    never_V = np.isin(np.arange(V), [*symbols.suppressed, symbols.no_times])
    begin_V = np.isin(np.arange(V), symbols.first_suppressed)
    banned_BV = never_V | (first_B1 & begin_V)
    if not times:
        return jnp.where(banned_BV, -jnp.inf, logits_BV.astype(jnp.float32))
    is_time_V = token_V >= symbols.times
    count_B1, last_B1, before_B1, time_B1 = (x[0][:, None] for x in written)
    after_time_B1 = ~first_B1 & (last_B1 >= symbols.times)
    pair_B1 = after_time_B1 & ((count_B1 < 2) | (before_B1 >= symbols.times))
    open_B1 = after_time_B1 & ~pair_B1  # the end of a segment: its pair, or the end of the text
    least_B1 = jnp.where(open_B1, time_B1, time_B1 + 1)
    banned_BV |= pair_B1 & is_time_V
    banned_BV |= open_B1 & (token_V < symbols.end)
    banned_BV |= is_time_V & (time_B1 > 0) & (token_V < least_B1)
    banned_BV |= first_B1 & ((token_V < symbols.times) | (token_V > symbols.times + FIRST))
    logits_BV = jnp.where(banned_BV, -jnp.inf, logits_BV.astype(jnp.float32))
    times_B1 = jax.nn.logsumexp(jnp.where(is_time_V, logits_BV, -jnp.inf), -1, keepdims=True)
    text_B1 = jnp.where(is_time_V, -jnp.inf, logits_BV).max(-1, keepdims=True)
    return jnp.where((times_B1 > text_B1) & ~is_time_V, -jnp.inf, logits_BV)
