"""Sampling for several prompts at once, one token after another, in bursts that are one compiled program.

    prompts ──read──► logits, cache ──sample──► tokens ──write──► logits, cache ──► …

No prompt's text depends on the other prompts: every row has its own length and its own random key. The number
of rows, the length of prompts and the capacity of the cache are rounded up to powers of two, so that few
programs serve all.
Dimensions: B rows, T tokens of a prompt, N tokens of a burst, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import keys
from jaxmodels.decoding.logits import filter_logits, penalise_repetition
from jaxmodels.interfaces import Decoder

BURST = 16  # tokens that are written before the host sees them, at most


class SamplingOptions(NamedTuple):
    """How tokens are drawn; see jaxmodels.options.Sampling."""

    tokens: int = 200
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def check(self) -> None:
        """Raises a ValueError that names the option which is out of range."""
        for name, valid, expected in (
            ("tokens", self.tokens >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_k", self.top_k >= 0, "0 (all) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0; 1 is none"),
        ):
            if not valid:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(
                    f"{option}: got {getattr(self, name)}; expected {expected}. Change {option}."
                )


class _Steps(NamedTuple):
    """Which parts of sampling a program has: a compile-time constant."""

    draw: bool  # else the likeliest token
    filter: bool
    penalise: bool


class _Burst(NamedTuple):
    n: jax.Array  # tokens of this burst so far
    tokens_BN: jax.Array
    logprobs_BN: jax.Array  # of the tokens, under the model itself
    logits_BV: jax.Array
    seen_BV: jax.Array
    done_B: jax.Array
    cache: Any


def sample(
    decoder: Decoder, params: Any, extra: Any, prompts: Sequence[Sequence[int]], options: SamplingOptions
) -> Iterator[tuple[list[list[int]], list[list[float]], list[bool]]]:
    """Bursts of (new tokens, their log-probabilities, whether the text has ended), one element per prompt.

    Send back a list of booleans to end texts early. Where the model's context is full, a text continues from
    the newer half of the context; with a source, it ends.
    """
    options.check()
    begin = [] if decoder.begin is None or decoder.source else [decoder.begin]
    seen = [begin + list(prompt) for prompt in prompts]
    if not all(seen):
        raise ValueError(
            "generate: got an empty prompt and a model without a begin token; expected a token at least. "
            "Give --prompt some text."
        )
    read, extend = _programs(decoder)
    # The n-th of equal prompts has the n-th key: equal prompts get different texts, and any other prompt the
    # text that it gets alone.
    repetition = [Counter(map(tuple, seen[:i]))[tuple(prompt)] for i, prompt in enumerate(seen)]
    rows = _power(len(seen))
    keys_B = keys.per_example(keys.root(options.seed), jnp.asarray(repetition + [0] * (rows - len(seen))))
    values = jnp.array(
        [options.temperature, options.top_p, options.min_p, options.repetition_penalty], jnp.float32
    )
    steps = _Steps(
        draw=options.temperature > 0,
        filter=bool(options.top_k) or options.top_p < 1 or options.min_p > 0,
        penalise=options.repetition_penalty != 1,
    )

    written = [0] * len(seen)
    done = [False] * len(seen)
    left = min(options.tokens, decoder.length) if decoder.source else options.tokens
    contexts = seen if decoder.source else [tokens[-max(1, decoder.length - 1) :] for tokens in seen]
    state: _Burst | None = None
    capacity = 0
    while left and not all(done):
        if state is None:
            capacity = _capacity(decoder, contexts, left)
            state = read(params, extra, *_padded(contexts, rows, decoder.length), capacity)
            state = state._replace(done_B=jnp.asarray(done + [True] * (rows - len(done))))
        used = (
            [1 + max(written)]
            if decoder.source
            else [len(c) for c, d in zip(contexts, done, strict=True) if not d]
        )
        limit = min(BURST, left, capacity - max(used) + 1)
        first = options.tokens - left
        state = extend(params, extra, state, keys_B, first, limit, values, options.top_k, steps)
        tokens_BN, logprobs_BN = np.asarray(state.tokens_BN), np.asarray(state.logprobs_BN)
        new: list[list[int]] = []
        logprobs: list[list[float]] = []
        for b, context in enumerate(contexts):
            row = [] if done[b] else tokens_BN[b, :limit].tolist()
            ends = [index for index, token in enumerate(row) if token in decoder.ends]
            if ends:
                row, done[b] = row[: ends[0]], True
            new.append(row)
            logprobs.append(logprobs_BN[b, : len(row)].tolist())
            written[b] += len(row)
            if not decoder.source:
                seen[b] += row
                context += row
        left -= limit
        ended = yield new, logprobs, list(done)
        if ended is not None:
            done = [a or b for a, b in zip(done, ended, strict=True)]
        state = state._replace(done_B=jnp.asarray(done + [True] * (rows - len(done))))
        full = [not d and len(context) > capacity for d, context in zip(done, contexts, strict=True)]
        if not decoder.source and any(full):
            half = max(1, decoder.length // 2)
            contexts = [tokens[-half:] if f else c for tokens, f, c in zip(seen, full, contexts, strict=True)]
            state = None


@lru_cache(maxsize=8)
def _programs(decoder: Decoder) -> tuple[Any, Any]:
    """(read, extend), compiled once per shape. Arrays are arguments: closed over, they would be constants."""
    return (
        jax.jit(partial(_read, decoder), static_argnums=4),
        jax.jit(partial(_extend, decoder), static_argnums=8, donate_argnums=2),
    )


def _read(
    decoder: Decoder, params: Any, extra: Any, tokens_BT: jax.Array, count_B: jax.Array, capacity: int
) -> _Burst:
    logits_BV, cache = decoder.read(params, extra, tokens_BT, count_B, capacity)
    B, V = logits_BV.shape
    real_BT = jnp.arange(tokens_BT.shape[1]) < count_B[:, None]
    seen_BV = jnp.zeros((B, V), bool)
    if not decoder.source:
        seen_BV = seen_BV.at[jnp.arange(B)[:, None], tokens_BT].max(real_BT)
    empty = jnp.zeros((B, BURST), jnp.int32), jnp.zeros((B, BURST), jnp.float32)
    return _Burst(jnp.zeros((), jnp.int32), *empty, logits_BV, seen_BV, jnp.zeros(B, bool), cache)


def _extend(
    decoder: Decoder,
    params: Any,
    extra: Any,
    state: _Burst,
    keys_B: jax.Array,
    first: Any,
    limit: Any,
    values: jax.Array,
    top_k: Any,
    steps: _Steps,
) -> _Burst:
    """At most `limit` more tokens in each row. first: tokens of the text before this burst."""
    temperature, top_p, min_p, penalty = values
    rows = jnp.arange(len(keys_B))

    def step(state: _Burst) -> _Burst:
        model_logits_BV = logits_BV = state.logits_BV.astype(jnp.float32)
        if steps.penalise:
            logits_BV = penalise_repetition(logits_BV, state.seen_BV, penalty)
        if steps.draw:
            logits_BV = logits_BV / temperature
            if steps.filter:
                logits_BV = filter_logits(logits_BV, top_k=top_k, top_p=top_p, min_p=min_p)
            token_keys_B = keys.fold(keys_B, first + state.n)
            token_B = jax.vmap(jax.random.categorical)(token_keys_B, logits_BV)
        else:
            token_B = logits_BV.argmax(-1)
        logprob_B = jax.nn.log_softmax(model_logits_BV)[rows, token_B]
        done_B = state.done_B | jnp.isin(token_B, jnp.asarray(decoder.ends, token_B.dtype))
        logits_BV, cache = decoder.write(params, extra, token_B, state.cache)
        return _Burst(
            state.n + 1,
            state.tokens_BN.at[:, state.n].set(token_B),
            state.logprobs_BN.at[:, state.n].set(logprob_B),
            logits_BV,
            state.seen_BV.at[rows, token_B].set(True),
            done_B,
            cache,
        )

    state = state._replace(n=jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(lambda state: (state.n < limit) & ~state.done_B.all(), step, state)


def _power(n: int) -> int:
    """The next power of two."""
    return 1 << max(0, n - 1).bit_length()


def _padded(contexts: Sequence[Sequence[int]], rows: int, length: int) -> tuple[jax.Array, jax.Array]:
    """(tokens_BT, count_B): the prompts padded with 0, and padding rows of one token.

    length: of the model, to whose length no prompt is padded beyond.
    """
    longest = max(map(len, contexts))
    tokens_BT = np.zeros((rows, max(longest, min(_power(longest), length))), np.int32)
    for row, context in zip(tokens_BT, contexts, strict=False):
        row[: len(context)] = context
    return jnp.asarray(tokens_BT), jnp.asarray(
        [len(c) for c in contexts] + [1] * (rows - len(contexts)), jnp.int32
    )


def _capacity(decoder: Decoder, contexts: Sequence[Sequence[int]], left: int) -> int:
    """Positions in the cache."""
    if decoder.source:
        return left + 1
    return min(decoder.length, max(_power(max(map(len, contexts)) + left), 16))
