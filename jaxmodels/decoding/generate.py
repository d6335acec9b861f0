"""Texts from prompts: sampling or beam search, stop strings, and text as it comes.

What a token's text is depends on those before it: many tokenizers give the first one no space. So a
continuation is decoded behind its prompt, and the prompt's own text is cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.decoding.beam import beam, penalty
from jaxmodels.decoding.sample import How, sample
from jaxmodels.task import Decoder

SEEN = 256  # tokens of a prompt behind which a continuation is decoded, at most


class Generation(NamedTuple):
    """What follows a prompt."""

    prompt: str
    text: str
    tokens: list[int]  # those that the text is made of
    logprobs: list[float]  # of the tokens, natural logarithms; empty with beams
    score: float  # sum of the log-probabilities, or the beam's
    source: bool = False  # whether the text is made of the prompt, instead of going on from it

    @property
    def whole(self) -> str:
        """What there is to read: the text, behind the prompt where it goes on from it."""
        return self.text if self.source else self.prompt + self.text


def generate(
    decoder: Decoder,
    params: Any,
    extra: Any,
    prompts: Sequence[str],
    *,
    stop: Sequence[str] = (),
    beams: int = 0,
    alpha: float = 0.6,
    show: Callable[[int, str], None] | None = None,
    **how: Any,
) -> list[Generation]:
    """One text for each prompt; how: see How.

    stop: strings that end a text and are not part of it: tokens, log-probabilities and score are of the text
    alone. beams: the best of a beam search with the length penalty's alpha (then nothing is drawn).
    show(number of the prompt, new text) is called as text comes, first with the prompt where a text goes on
    from it.
    """
    if not prompts:
        raise ValueError("there is no prompt; wanted at least one; give --prompt some text")
    if "" in stop:
        raise ValueError(
            "got an empty stop string, which every text begins with; expected strings of a character or more. Leave it out"
        )
    encoded = [list(decoder.encode(prompt)) for prompt in prompts]
    if show is not None and not decoder.source:
        for b, prompt in enumerate(prompts):
            show(b, prompt)
    if beams:
        found = _search(decoder, params, extra, prompts, encoded, beams, alpha, stop, How(**how))
        for b, wrote in enumerate(found if show is not None else ()):
            show(b, wrote.text)  # type: ignore[misc]
        return found
    tokens: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    reads = [_reader(decoder, prompt) for prompt in encoded]
    texts, shown, stopped = [""] * len(prompts), [0] * len(prompts), [False] * len(prompts)
    bursts = sample(decoder, params, extra, encoded, How(**how))
    ended: list[bool] | None = None
    while True:
        try:
            new, new_logprobs, done = bursts.send(ended) if ended is not None else next(bursts)  # type: ignore[attr-defined]
        except StopIteration:
            break
        for b in range(len(prompts)):
            if stopped[b]:
                continue
            first = len(tokens[b]) + 1
            tokens[b] += new[b]
            logprobs[b] += new_logprobs[b]
            texts[b] = reads[b](tokens[b])
            if (ending := _ending(reads[b], tokens[b], first, stop)) is not None:
                stopped[b] = True
                texts[b], count = ending
                del tokens[b][count:], logprobs[b][count:]
            if show is not None:
                settled = texts[b] if done[b] or stopped[b] else _settled(texts[b], stop)
                if len(settled) > shown[b]:
                    show(b, settled[shown[b] :])
                    shown[b] = len(settled)
        ended = [one or other for one, other in zip(done, stopped, strict=True)]
    if show is not None:
        for b, text in enumerate(texts):
            if text[shown[b] :]:
                show(b, text[shown[b] :])
    return [
        Generation(*row, sum(row[-1]), decoder.source)
        for row in zip(prompts, texts, tokens, logprobs, strict=True)
    ]


def _reader(decoder: Decoder, prompt: Sequence[int]) -> Callable[[Sequence[int]], str]:
    """The text of tokens that follow this prompt."""
    before = [] if decoder.source else list(prompt[-SEEN:])
    head = decoder.decode(before) if before else ""

    def read(tokens: Sequence[int]) -> str:
        whole = decoder.decode([*before, *tokens])
        if whole.startswith(head):
            return whole[len(head) :]
        same = (at for at, (one, other) in enumerate(zip(head, whole, strict=False)) if one != other)
        return whole[next(same, min(len(head), len(whole))) :]

    return read


def _ending(
    read: Callable[[Sequence[int]], str], tokens: Sequence[int], first: int, stop: Sequence[str]
) -> tuple[str, int] | None:
    """The text before a stop string, and the number of its tokens; None without a stop string.

    The token that completes a stop string ends the text, however many were written in one go. Fewer than
    `first` tokens hold none.
    """
    if _until(stop, read(tokens)) is None:
        return None
    pieces = ((n, _until(stop, read(tokens[:n]))) for n in range(first, len(tokens) + 1))
    count, text = next((n, text) for n, text in pieces if text is not None)
    while count and read(tokens[: count - 1]).startswith(text):
        count -= 1
    return text, count


def _until(stop: Sequence[str], text: str) -> str | None:
    """The text before the first of the stop strings; None where there is none."""
    places = [place for place in (text.find(s) for s in stop) if place >= 0]
    return text[: min(places)] if places else None


def _settled(text: str, stop: Sequence[str]) -> str:
    """The part of an unfinished text that more tokens cannot change: no half character, no beginning of a stop string."""
    text = text.rstrip("�")
    longest = max((n for s in stop for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
    return text[: len(text) - longest]


def _search(
    decoder: Decoder,
    params: Any,
    extra: Any,
    prompts: Sequence[str],
    encoded: list[list[int]],
    beams: int,
    alpha: float,
    stop: Sequence[str],
    how: How,
) -> list[Generation]:
    how.check()
    begin = [] if decoder.begin is None or decoder.source else [decoder.begin]
    rows = [begin + tokens for tokens in encoded]
    if not all(rows):
        raise ValueError(
            "the prompt is empty and the model has no token to begin with; give --prompt some text"
        )
    tokens_BT = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, tokens in zip(tokens_BT, rows, strict=True):
        row[: len(tokens)] = tokens
    count_B = np.array([len(tokens) for tokens in rows], np.int32)
    found = beam(decoder, params, extra, tokens_BT, count_B, width=beams, tokens=how.tokens, alpha=alpha)
    out = []
    for b, prompt in enumerate(prompts):
        tokens = np.asarray(found.tokens_BKN)[b, 0, : int(found.count_BK[b, 0])].tolist()
        score = float(found.score_BK[b, 0])
        read = _reader(decoder, encoded[b])
        text = read(tokens)
        if (ending := _ending(read, tokens, 1, stop)) is not None:
            text, count = ending
            tokens = tokens[:count]
            score = _score(decoder, params, extra, rows[b], tokens) / penalty(count, alpha)
        out.append(Generation(prompt, text, tokens, [], score, decoder.source))
    return out


def _score(decoder: Decoder, params: Any, extra: Any, prompt: Sequence[int], tokens: Sequence[int]) -> float:
    """The log-probability of tokens that follow a prompt."""
    if not tokens:
        return 0.0
    prompt_BT = jnp.asarray([prompt], jnp.int32)
    return float(_scorer(decoder)(params, extra, prompt_BT, jnp.asarray(tokens, jnp.int32)))


@lru_cache(maxsize=8)
def _scorer(decoder: Decoder) -> Any:
    return jax.jit(partial(_likelihood, decoder))


def _likelihood(
    decoder: Decoder, params: Any, extra: Any, prompt_BT: jax.Array, tokens_N: jax.Array
) -> jax.Array:
    N, T = len(tokens_N), prompt_BT.shape[1]
    room = N + 1 if decoder.source else T + N
    logits_BV, cache = decoder.read(params, extra, prompt_BT, jnp.array([T]), room)

    def step(carry: Any, token: jax.Array) -> tuple[Any, jax.Array]:
        logits_BV, cache = carry
        logprob = jax.nn.log_softmax(logits_BV[0].astype(jnp.float32))[token]
        return decoder.write(params, extra, token[None], cache), logprob

    return jax.lax.scan(step, (logits_BV, cache), tokens_N)[1].sum()
