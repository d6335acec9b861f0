"""Beam search: the likeliest texts that a search of fixed width finds.

Dimensions: B batch, K beams, N tokens written, V vocabulary, C candidates.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmodels.interfaces import Decoder


class Beams(NamedTuple):
    """The texts found for each prompt, best first."""

    tokens_BKN: jax.Array  # without the end token; 0 after the end
    count_BK: jax.Array  # tokens
    score_BK: jax.Array  # log-probability over the length penalty


class _State(NamedTuple):
    n: jax.Array
    live_BKN: jax.Array
    live_BK: jax.Array  # log-probabilities
    done: Beams
    logits: jax.Array  # of the next token of the live beams, B x K rows
    cache: Any


def penalty(length: Any, alpha: float) -> Any:
    """((5 + length) / 6) ^ alpha (arXiv:1609.08144, equation 14)."""
    return ((5 + length) / 6) ** alpha


def beam(
    decoder: Decoder,
    params: Any,
    extra: Any,
    tokens_BT: Any,
    count_B: Any,
    *,
    width: int = 4,
    tokens: int = 64,
    alpha: float = 0.6,
) -> Beams:
    """The best continuations of the prompts, or outputs for the sources: count_B real tokens a row.

    Each has at most `tokens` tokens; a text that has not ended by then counts as ended. One compilation per
    shape.
    """
    if width < 1 or tokens < 1 or alpha < 0:
        raise ValueError(
            f"beam search: got width {width}, {tokens} tokens and alpha {alpha}; "
            "expected at least 1, 1 and 0. Change them."
        )
    total = tokens if decoder.source else tokens + tokens_BT.shape[1]
    if total > decoder.length:
        raise ValueError(
            f"beam search: got {total} tokens of prompt and output; "
            f"expected at most the model's {decoder.length}. Ask for fewer tokens."
        )
    return _program(decoder)(
        params, extra, jnp.asarray(tokens_BT), jnp.asarray(count_B), width, tokens, alpha
    )


@lru_cache(maxsize=8)
def _program(decoder: Decoder) -> Any:
    return jax.jit(partial(_search, decoder), static_argnums=(4, 5))


def _search(
    decoder: Decoder, params: Any, extra: Any, tokens_BT: Any, count_B: Any, K: int, N: int, alpha: Any
) -> Beams:
    B, T = tokens_BT.shape
    capacity = N + 1 if decoder.source else T + N
    logits_BV, cache = decoder.read(params, extra, tokens_BT, count_B, capacity)
    V = logits_BV.shape[-1]
    ends = jnp.asarray(decoder.ends, jnp.int32)
    # One more per beam for each end token: K candidates that go on remain.
    C = min(K * (1 + max(1, len(decoder.ends))), K * V)
    rows = jnp.arange(B)[:, None]

    def step(state: _State) -> _State:
        logs_BKV = jax.nn.log_softmax(state.logits.reshape(B, K, V).astype(jnp.float32))
        total_BKV = state.live_BK[..., None] + logs_BKV
        score_BC, flat_BC = jax.lax.top_k(total_BKV.reshape(B, K * V), C)
        parent_BC, token_BC = flat_BC // V, flat_BC % V
        ends_BC = jnp.isin(token_BC, ends)

        old_BCN = state.live_BKN[rows, parent_BC]
        new_BCN = old_BCN.at[:, :, state.n].set(token_BC)
        best_C = jnp.arange(ends_BC.shape[1]) < K  # a text ends only where its end is among the K best
        ended_BC = jnp.where(ends_BC & best_C, score_BC / penalty(state.n + 1, alpha), -jnp.inf)
        done = _best(state.done, Beams(old_BCN, jnp.full(ended_BC.shape, state.n), ended_BC), K)

        live_BK, index_BK = jax.lax.top_k(jnp.where(ends_BC, -jnp.inf, score_BC), K)
        token_BK, parent_BK = token_BC[rows, index_BK], parent_BC[rows, index_BK]
        row = (rows * K + parent_BK).reshape(-1)
        cache = jax.tree.map(lambda x: x[:, row], state.cache)
        logits, cache = decoder.write(params, extra, token_BK.reshape(-1), cache)
        return _State(state.n + 1, new_BCN[rows, index_BK], live_BK, done, logits, cache)

    def continues(state: _State) -> jax.Array:
        # Probabilities only fall: the bound of a live beam's score is its present probability at full length.
        bound_B = state.live_BK[:, 0] / penalty(N, alpha)
        return (state.n < N) & (bound_B > state.done.score_BK[:, -1]).any()

    empty = Beams(jnp.zeros((B, K, N), jnp.int32), jnp.zeros((B, K), jnp.int32), jnp.full((B, K), -jnp.inf))
    # At first all beams are the same: only one counts.
    first_BK = jnp.broadcast_to(jnp.where(jnp.arange(K) == 0, 0.0, -jnp.inf), (B, K))
    repeat = partial(jnp.repeat, repeats=K)
    start = _State(
        jnp.zeros((), jnp.int32),
        empty.tokens_BKN,
        first_BK,
        empty,
        repeat(logits_BV, axis=0),
        jax.tree.map(lambda x: repeat(x, axis=1), cache),
    )
    state = jax.lax.while_loop(continues, step, start)
    # A beam of full length counts as ended.
    live_BK = jnp.where(state.n == N, state.live_BK / penalty(N, alpha), -jnp.inf)
    return _best(state.done, Beams(state.live_BKN, jnp.full((B, K), N), live_BK), K)


def _best(a: Beams, b: Beams, K: int) -> Beams:
    """The K best of both."""
    tokens, count, score = (jnp.concatenate([x, y], 1) for x, y in zip(a, b, strict=True))
    score_BK, index_BK = jax.lax.top_k(score, K)
    rows = jnp.arange(len(index_BK))[:, None]
    return Beams(tokens[rows, index_BK], count[rows, index_BK], score_BK)
