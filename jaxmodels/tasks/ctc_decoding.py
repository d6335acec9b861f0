"""The texts that a model of frames says: connectionist temporal classification (Graves et al., 2006).

A path is a class for each frame; its text is what is left when repetitions are merged and blanks (class 0)
dropped. Both searches are loops within one compiled program.
Dimensions: B batch, T frames, K classes, N tokens of a text, W beams.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

NEVER = -1e30  # the logarithm of a probability of 0


class Texts(NamedTuple):
    """Texts of any length up to N. score: the logarithm of the probability that the search gave each."""

    tokens: jax.Array  # (..., N), 0 after the end
    length: jax.Array  # (...)
    score: jax.Array  # (...)


def greedy(logits_BTK: jax.Array, real_BT: jax.Array) -> Texts:
    """The text (BN, N = T) of the likeliest path, with the path's own probability."""
    T = logits_BTK.shape[1]
    log_BTK = jax.nn.log_softmax(logits_BTK.astype(jnp.float32))
    best_BT = jnp.where(real_BT > 0, log_BTK.argmax(-1), 0)
    before_BT = jnp.pad(best_BT, ((0, 0), (1, 0)))[:, :-1]
    kept_BT = (best_BT != 0) & (best_BT != before_BT)
    place_BT = jnp.where(kept_BT, kept_BT.cumsum(1) - 1, T)
    tokens_BN = jax.vmap(lambda place, best: jnp.zeros(T, jnp.int32).at[place].set(best, mode="drop"))(
        place_BT, best_BT.astype(jnp.int32)
    )
    score_B = jnp.where(real_BT > 0, log_BTK.max(-1), 0).sum(1)
    return Texts(tokens_BN, kept_BT.sum(1), score_B)


def prefix_beam(logits_BTK: jax.Array, real_BT: jax.Array, *, width: int, tokens: int) -> Texts:
    """The likeliest texts (BWN, N = tokens), best first, by a beam over prefixes (arXiv:1408.2873).

    The probability of a text is the sum over all its paths; with a width of at least the number of possible
    prefixes the search is exact. No text is longer than `tokens`.
    """
    if min(width, tokens) < 1:
        raise ValueError(
            f"prefix_beam: got width={width}, tokens={tokens}; expected at least 1 of both. Raise them."
        )
    log_BTK = jax.nn.log_softmax(logits_BTK.astype(jnp.float32))
    return jax.vmap(lambda log_TK, real_T: _search(log_TK, real_T, width, tokens))(log_BTK, real_BT > 0)


class _Beams(NamedTuple):
    """Prefixes, each with the probability of its paths that end in a blank, and of those that do not."""

    tokens_WN: jax.Array
    count_W: jax.Array
    blank_W: jax.Array
    token_W: jax.Array


def _search(log_TK: jax.Array, real_T: jax.Array, W: int, N: int) -> Texts:
    first = _Beams(
        jnp.zeros((W, N), jnp.int32),
        jnp.zeros(W, jnp.int32),
        jnp.full(W, NEVER).at[0].set(0.0),
        jnp.full(W, NEVER),
    )

    def step(beams, inputs):
        log_K, real = inputs
        return jax.tree.map(lambda new, old: jnp.where(real, new, old), _extended(beams, log_K), beams), None

    beams = jax.lax.scan(step, first, (log_TK, real_T))[0]
    score_W, order_W = jax.lax.top_k(jnp.logaddexp(beams.blank_W, beams.token_W), W)
    return Texts(beams.tokens_WN[order_W], beams.count_W[order_W], score_W)


def _extended(beams: _Beams, log_K: jax.Array) -> _Beams:
    """The best prefixes after one more frame: each stays as it is, or grows by a token."""
    tokens_WN, count_W, blank_W, token_W = beams
    (W, N), K = tokens_WN.shape, len(log_K)
    total_W = jnp.logaddexp(blank_W, token_W)
    last_W = jnp.where(count_W > 0, tokens_WN[jnp.arange(W), count_W - 1], 0)

    stay_blank_W = total_W + log_K[0]
    stay_token_W = jnp.where(count_W > 0, token_W + log_K[last_W], NEVER)
    repeats_WK = last_W[:, None] == jnp.arange(K)  # a token follows itself only after a blank
    grow_WK = jnp.where(repeats_WK, blank_W[:, None], total_W[:, None]) + log_K
    grow_WK = jnp.where((jnp.arange(K) == 0) | (count_W[:, None] >= N), NEVER, grow_WK)

    # A prefix that grows into one that is in the beam, W', is merged with it.
    shared_WWN = tokens_WN[:, None] == tokens_WN[None]
    same_WW = (shared_WWN | (jnp.arange(N) >= count_W[:, None, None])).all(-1)
    alive_W = total_W > NEVER / 2
    grows_WW = same_WW & (count_W[None] == count_W[:, None] + 1) & alive_W[None] & alive_W[:, None]
    into_WW = jnp.where(grows_WW, jnp.take_along_axis(grow_WK, last_W[None].repeat(W, 0), 1), NEVER)
    stay_token_W = jnp.logaddexp(stay_token_W, jax.nn.logsumexp(into_WW, axis=0))
    merged_WK = (grows_WW[..., None] & (last_W[None, :, None] == jnp.arange(K))).any(1)
    grow_WK = jnp.where(merged_WK, NEVER, grow_WK)

    candidates = jnp.concatenate([jnp.logaddexp(stay_blank_W, stay_token_W), grow_WK.ravel()])
    _, chosen_W = jax.lax.top_k(candidates, W)
    stays_W = chosen_W < W
    from_W = jnp.where(stays_W, chosen_W, (chosen_W - W) // K)
    added_W = jnp.where(stays_W, 0, (chosen_W - W) % K)
    new_WN = tokens_WN[from_W]
    place_WN = (jnp.arange(N) == count_W[from_W][:, None]) & ~stays_W[:, None]
    return _Beams(
        jnp.where(place_WN, added_W[:, None], new_WN).astype(jnp.int32),
        count_W[from_W] + ~stays_W,
        jnp.maximum(jnp.where(stays_W, stay_blank_W[from_W], NEVER), NEVER),
        jnp.maximum(jnp.where(stays_W, stay_token_W[from_W], candidates[chosen_W]), NEVER),
    )
