"""The engine's compiled programs: read a part of a prompt, admit its row to a slot, write a burst of tokens.

    prompt ──read──► row's cache ──admit──► slot's cache, first token ──burst──► tokens ──burst──► …

A slot's last token is not in the cache yet: a step of a burst feeds it, with tokens that were drafted to
follow it, and draws the token after each. A drafted token stays if it equals the one drawn at its position
(arXiv:2211.17192, with a draft that is certain), so no draft ever changes a text. What the host knows of the
slots comes with every call as small arrays; nothing in a call's values leads to a new compilation.

Dimensions: B slots, T tokens of a prompt, C capacity, V vocabulary, K tokens that a step feeds, N tokens of a
burst, W words of 32 bits of a mask over V.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import keys
from jaxmodels.decoding.logits import filter_logits, penalise_repetition
from jaxmodels.interfaces import Decoder
from jaxmodels.serving import caches
from jaxmodels.serving.drafts import look_up


class Rows(NamedTuple):
    """What the host says of each slot; arrays with the slots first."""

    token: Any  # the last token of the text
    length: Any  # tokens in the cache
    written: Any  # tokens of the text so far
    left: Any  # tokens that the burst may write; 0: the slot rests
    seed: Any  # B2, the two words of the seed; see jaxmodels.keys
    temperature: Any
    top_k: Any
    top_p: Any
    min_p: Any
    penalty: Any  # of repetition
    adapter: Any  # index; 0 is none
    masked: Any  # whether the next token must be one of mask's
    mask: Any  # BW, one bit a token

    @classmethod
    def resting(cls, slots: int, words: int) -> Rows:
        """Slots without a text."""

        def zeros(*shape: int, dtype: Any = np.int32) -> np.ndarray:
            return np.zeros((slots, *shape), dtype)

        ones = partial(np.ones, slots, np.float32)
        seed, temperature, min_p = zeros(2, dtype=np.uint32), zeros(dtype=np.float32), zeros(dtype=np.float32)
        mask = zeros(dtype=bool), zeros(words, dtype=np.uint32)
        return cls(
            *(zeros(), zeros(), zeros(), zeros(), seed),
            *(temperature, zeros(), ones(), min_p, ones(), zeros(), *mask),
        )


class Slots(NamedTuple):
    """What stays on the device between calls."""

    caches: tuple[Any, ...]  # the model's and, if there is one, the draft model's
    seen_BV: jax.Array  # tokens of prompt and text
    context_BC: jax.Array  # the same in order; one column where nothing looks up


class Plan(NamedTuple):
    """What the programs are made for."""

    decoders: tuple[Decoder, ...]  # the model's and, if there is one, the draft model's
    drafted: int  # tokens that a step drafts
    columns: int  # tokens that a burst returns at most

    @property
    def looks_up(self) -> bool:
        """Whether drafts come from the text so far."""
        return self.drafted > 0 and len(self.decoders) == 1


class Programs(NamedTuple):
    """Compiled once per shape; donated arguments are updated in place."""

    read: Any  # (params, extras, row's caches, tokens_1T, count_1, adapter_1, view) -> (logits_1V, caches)
    admit: (
        Any  # (slots, row's caches, logits_1V, prompt_C, rows of one, slot, view) -> (slots, token, logprob)
    )
    burst: Any  # (params, extras, slots, rows, steps, view) -> (slots, Written)


class Written(NamedTuple):
    """What a burst wrote."""

    tokens_BN: jax.Array
    logprobs_BN: jax.Array  # under the model itself
    count_B: jax.Array
    accepted: jax.Array  # drafted tokens that stayed
    drafted: jax.Array


@lru_cache(maxsize=8)
def programs(plan: Plan) -> Programs:
    """The programs of a plan."""
    return Programs(
        jax.jit(partial(_read, plan), static_argnums=6, donate_argnums=2),
        jax.jit(partial(_admit, plan), static_argnums=6, donate_argnums=0),
        jax.jit(partial(_burst, plan), static_argnums=5, donate_argnums=2),
    )


def extra_of(extra: Any, adapter_B: Any) -> Any:
    """The model's other variables, with each row's adapter where there are adapters."""
    return {**extra, "adapter_B": adapter_B} if "adapter_B" in extra else extra


def _read(
    plan: Plan, params: Any, extras: Any, rows: Any, tokens_1T: Any, count_1: Any, adapter_1: Any, view: int
) -> tuple[jax.Array, Any]:
    """The caches of one row with these tokens, and the logits of the token after them."""
    logits, read = [], []
    index_11 = jnp.maximum(count_1 - 1, 0)[:, None]
    for decoder, p, e, cache in zip(plan.decoders, params, extras, rows, strict=True):
        e = extra_of(e, adapter_1)
        part = caches.view(cache, view)
        logits_11V, part = _extend(decoder)(p, e, tokens_1T, count_1, part, index_11)
        logits.append(logits_11V[:, 0])
        read.append(caches.put_back(cache, part))
    return logits[0], tuple(read)


def _admit(
    plan: Plan, slots: Slots, row: Any, logits_1V: Any, prompt_C: Any, rows: Rows, slot: Any, view: int
) -> tuple[Slots, jax.Array, jax.Array]:
    """The slots with a new row in one, and the first token of its text with its log-probability."""
    V = logits_1V.shape[-1]
    count = rows.length[0]
    real_C = jnp.arange(len(prompt_C)) < count
    seen_V = jnp.zeros(V, bool).at[prompt_C].max(real_C)
    token_1, logprob_1 = draw(logits_1V, seen_V[None], rows, rows.written)
    context_BC = slots.context_BC
    if plan.looks_up:
        context_C = jnp.pad(prompt_C, (0, context_BC.shape[1] - len(prompt_C))).at[count].set(token_1[0])
        context_BC = context_BC.at[slot].set(context_C)
    admitted = Slots(
        tuple(caches.insert(a, b, slot, view) for a, b in zip(slots.caches, row, strict=True)),
        slots.seen_BV.at[slot].set(seen_V.at[token_1[0]].set(True)),
        context_BC,
    )
    return admitted, token_1[0], logprob_1[0]


class _State(NamedTuple):
    step: jax.Array
    written: Written
    rows: Rows
    slots: Slots


def _burst(
    plan: Plan, params: Any, extras: Any, slots: Slots, rows: Rows, steps: Any, view: int
) -> tuple[Slots, Written]:
    """At most rows.left more tokens in each of the first slots, which rows has, in at most `steps` steps."""
    whole, rows = slots, Rows(*map(jnp.asarray, rows))
    extras = [extra_of(e, rows.adapter) for e in extras]
    B, K = len(rows.token), 1 + plan.drafted
    b = jnp.arange(B)
    ends = jnp.asarray(plan.decoders[0].ends, jnp.int32)
    first = [caches.before_burst(cache, B, view, plan.columns) for cache in whole.caches]
    slots = Slots(tuple(first), whole.seen_BV[:B], whole.context_BC[:B])

    def step(state: _State) -> _State:
        written, rows, slots = state.written, state.rows, state.slots
        active_B = rows.left > 0
        drafts_BK, drafting = _drafts(plan, params, extras, slots, rows)
        fed_BK = jnp.concatenate([rows.token[:, None], drafts_BK], 1)
        logits_BKV, given = _extend(plan.decoders[0])(
            params[0], extras[0], fed_BK, jnp.where(active_B, K, 0), slots.caches[0]
        )
        cache = caches.after_call(slots.caches[0], given)

        def position(carry: Any, now: Any) -> tuple[Any, Any]:
            alive_B, left_B, seen_BV = carry
            j, logits_BV, next_B = now
            token_B, logprob_B = draw(logits_BV, seen_BV, rows, rows.written + j, first=j == 0)
            seen_BV = seen_BV.at[b, token_B].max(alive_B)
            left_B = jnp.where(jnp.isin(token_B, ends), 0, left_B - 1)
            left_B = jnp.where(alive_B, left_B, carry[1])
            return (alive_B & (left_B > 0) & (token_B == next_B), left_B, seen_BV), (
                token_B,
                logprob_B,
                alive_B,
            )

        next_KB = jnp.concatenate([drafts_BK, jnp.full((B, 1), -1, jnp.int32)], 1).T
        (_, left_B, seen_BV), (token_KB, logprob_KB, kept_KB) = jax.lax.scan(
            position,
            (active_B, rows.left, slots.seen_BV),
            (jnp.arange(K), logits_BKV.swapaxes(0, 1), next_KB),
        )
        kept_B = kept_KB.sum(0)
        columns_KB = jnp.where(kept_KB, written.count_B + jnp.arange(K)[:, None], plan.columns)
        rows = rows._replace(
            token=jnp.where(active_B, token_KB[jnp.maximum(kept_B - 1, 0), b], rows.token),
            length=rows.length + kept_B,
            written=rows.written + kept_B,
            left=left_B,
        )
        context_BC = slots.context_BC
        if plan.looks_up:
            at_KB = jnp.where(kept_KB, rows.length - kept_B + 1 + jnp.arange(K)[:, None], context_BC.shape[1])
            context_BC = context_BC.at[b[None], at_KB].set(token_KB, mode="drop")
        kept = tuple(c.of_length(rows.length) for c in (cache, *drafting)) if K > 1 else (cache,)
        steps_taken = (active_B & ~rows.masked).sum()
        return _State(
            state.step + 1,
            Written(
                written.tokens_BN.at[b[None], columns_KB].set(token_KB, mode="drop"),
                written.logprobs_BN.at[b[None], columns_KB].set(logprob_KB, mode="drop"),
                written.count_B + kept_B,
                written.accepted + jnp.where(active_B, kept_B - 1, 0).sum(),
                written.drafted + plan.drafted * steps_taken,
            ),
            rows,
            Slots(kept, seen_BV, context_BC),
        )

    empty = Written(
        jnp.zeros((B, plan.columns), jnp.int32),
        jnp.zeros((B, plan.columns), jnp.float32),
        *(jnp.zeros(shape, jnp.int32) for shape in ((B,), (), ())),
    )
    start = _State(jnp.zeros((), jnp.int32), empty, rows, slots)
    end = jax.lax.while_loop(lambda s: (s.step < steps) & (s.rows.left > 0).any(), step, start)
    after = Slots(
        tuple(map(caches.after_burst, whole.caches, end.slots.caches)),
        whole.seen_BV.at[:B].set(end.slots.seen_BV),
        whole.context_BC.at[:B].set(end.slots.context_BC),
    )
    return after, end.written


def _drafts(
    plan: Plan, params: Any, extras: Any, slots: Slots, rows: Rows
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Tokens that may follow each slot's last, and the draft model's cache after them."""
    B = len(rows.token)
    if not plan.drafted:
        return jnp.zeros((B, 0), jnp.int32), ()
    if plan.looks_up:
        return look_up(slots.context_BC, rows.length, plan.drafted), ()
    active_B = (rows.left > 0).astype(jnp.int32)

    def write(carry: Any, j: Any) -> tuple[Any, jax.Array]:
        token_B, cache = carry
        extend, fed_B1 = _extend(plan.decoders[1]), token_B[:, None]
        logits_B1V, given = extend(params[1], extras[1], fed_B1, active_B, cache)
        cache = caches.after_call(cache, given)
        # With the same key as the model's own draw, a draft hits as often as the distributions agree.
        token_B, _ = draw(logits_B1V[:, 0], slots.seen_BV, rows, rows.written + j, first=j == 0)
        return (token_B, cache), token_B

    (_, cache), token_KB = jax.lax.scan(write, (rows.token, slots.caches[1]), jnp.arange(plan.drafted + 1))
    return token_KB[:-1].T, (cache,)


def draw(
    logits_BV: jax.Array, seen_BV: jax.Array, rows: Rows, index_B: Any, first: Any = True
) -> tuple[jax.Array, jax.Array]:
    """A token for each row and its log-probability: what jaxmodels.decoding.sample draws at this index.

    first: whether it is the one that rows.mask is for.
    """
    V = logits_BV.shape[-1]
    model_BV = logits_BV.astype(jnp.float32)
    logits_BV = penalise_repetition(model_BV, seen_BV, rows.penalty[:, None])
    masked_B = rows.masked & first
    logits_BV = jax.lax.cond(
        masked_B.any(),
        lambda x: jnp.where(~masked_B[:, None] | _bits(rows.mask, V), x, -jnp.inf),
        lambda x: x,
        logits_BV,
    )
    draws_B = rows.temperature > 0
    filters_B = (rows.top_k > 0) | (rows.top_p < 1) | (rows.min_p > 0)

    def filtered(scaled_BV: jax.Array) -> jax.Array:
        options = {name: getattr(rows, name)[:, None] for name in ("top_k", "top_p", "min_p")}
        return jnp.where(filters_B[:, None], filter_logits(scaled_BV, **options), scaled_BV)

    def drawn(logits_BV: jax.Array) -> jax.Array:
        scaled_BV = logits_BV / jnp.where(draws_B, rows.temperature, 1.0)[:, None]
        scaled_BV = jax.lax.cond((draws_B & filters_B).any(), filtered, lambda x: x, scaled_BV)
        # The key of a prompt that is alone: number 0 of its seed's.
        root_B = jax.vmap(lambda words: jax.random.fold_in(keys.root(words), 0))(jnp.asarray(rows.seed))
        key_B = jax.vmap(jax.random.fold_in)(root_B, index_B)
        return jax.vmap(jax.random.categorical)(key_B, scaled_BV).astype(jnp.int32)

    likeliest_B = logits_BV.argmax(-1).astype(jnp.int32)
    drawn_B = jax.lax.cond(draws_B.any(), drawn, lambda _: likeliest_B, logits_BV)
    token_B = jnp.where(draws_B, drawn_B, likeliest_B)
    return token_B, jax.nn.log_softmax(model_BV)[jnp.arange(len(token_B)), token_B]


def _bits(words_BW: Any, V: int) -> jax.Array:
    """The first V bits of each row, the lowest of a word first."""
    bits = jnp.asarray(words_BW)[:, :, None] >> jnp.arange(32, dtype=jnp.uint32) & 1
    return bits.reshape(len(bits), -1)[:, :V] > 0


def _extend(decoder: Decoder) -> Any:
    assert decoder.extend is not None
    return decoder.extend
