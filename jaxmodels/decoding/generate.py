"""Texts from prompts: sampling or beam search, stop strings, and streaming."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.decoding.beam import beam, penalty
from jaxmodels.decoding.sample import SamplingOptions, sample
from jaxmodels.decoding.text import ending, reader, settled
from jaxmodels.interfaces import Decoder


class Generation(NamedTuple):
    """The text for a prompt."""

    prompt: str
    text: str
    tokens: list[int]  # of the text
    logprobs: list[float]  # of the tokens, natural logarithms; empty with beams
    score: float  # sum of the log-probabilities, or the beam's
    source: bool = False  # whether the prompt is a source, such as to translate; else the text continues it

    @property
    def with_prompt(self) -> str:
        """The text for a reader: with the prompt before it where it continues the prompt."""
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
    **options: Any,
) -> list[Generation]:
    """One text for each prompt; options: see SamplingOptions.

    stop: strings that end a text and are not part of it: tokens, log-probabilities and score are of the text
    alone. beams: width of a beam search, whose best text is taken (nothing is sampled); 0 samples. alpha: its
    length penalty's exponent. show(index of the prompt, new text) is called as text arrives, first with the
    prompt where the text continues it.
    """
    if not prompts:
        raise ValueError("generate: got no prompt; expected at least one. Give --prompt some text.")
    if "" in stop:
        raise ValueError(
            "generate: got an empty stop string, with which every text begins; "
            "expected at least one character. Leave it out."
        )
    encoded = [list(decoder.encode(prompt)) for prompt in prompts]
    if show is not None and not decoder.source:
        for b, prompt in enumerate(prompts):
            show(b, prompt)
    if beams:
        generations = _search(
            decoder, params, extra, prompts, encoded, beams, alpha, stop, SamplingOptions(**options)
        )
        if show is not None:
            for b, generation in enumerate(generations):
                show(b, generation.text)
        return generations
    tokens: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    readers = [reader(decoder, prompt) for prompt in encoded]
    texts, shown, stopped = [""] * len(prompts), [0] * len(prompts), [False] * len(prompts)
    bursts = sample(decoder, params, extra, encoded, SamplingOptions(**options))
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
            texts[b] = readers[b](tokens[b])
            if (cut := ending(readers[b], tokens[b], first, stop)) is not None:
                stopped[b] = True
                texts[b], count = cut
                del tokens[b][count:], logprobs[b][count:]
            if show is not None:
                kept = texts[b] if done[b] or stopped[b] else settled(texts[b], stop)
                if len(kept) > shown[b]:
                    show(b, kept[shown[b] :])
                    shown[b] = len(kept)
        ended = [a or b for a, b in zip(done, stopped, strict=True)]
    if show is not None:
        for b, text in enumerate(texts):
            if text[shown[b] :]:
                show(b, text[shown[b] :])
    return [
        Generation(*row, sum(row[-1]), decoder.source)
        for row in zip(prompts, texts, tokens, logprobs, strict=True)
    ]


def _search(
    decoder: Decoder,
    params: Any,
    extra: Any,
    prompts: Sequence[str],
    encoded: list[list[int]],
    beams: int,
    alpha: float,
    stop: Sequence[str],
    options: SamplingOptions,
) -> list[Generation]:
    options.check()
    begin = [] if decoder.begin is None or decoder.source else [decoder.begin]
    rows = [begin + tokens for tokens in encoded]
    if not all(rows):
        raise ValueError(
            "generate: got an empty prompt and a model without a begin token; expected a token at least. "
            "Give --prompt some text."
        )
    tokens_BT = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, tokens in zip(tokens_BT, rows, strict=True):
        row[: len(tokens)] = tokens
    count_B = np.array([len(tokens) for tokens in rows], np.int32)
    found = beam(decoder, params, extra, tokens_BT, count_B, width=beams, tokens=options.tokens, alpha=alpha)
    generations = []
    for b, prompt in enumerate(prompts):
        tokens = np.asarray(found.tokens_BKN)[b, 0, : int(found.count_BK[b, 0])].tolist()
        score = float(found.score_BK[b, 0])
        read = reader(decoder, encoded[b])
        text = read(tokens)
        if (cut := ending(read, tokens, 1, stop)) is not None:
            text, count = cut
            tokens = tokens[:count]
            score = _score(decoder, params, extra, rows[b], tokens) / penalty(count, alpha)
        generations.append(Generation(prompt, text, tokens, [], score, decoder.source))
    return generations


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
    capacity = N + 1 if decoder.source else T + N
    logits_BV, cache = decoder.read(params, extra, prompt_BT, jnp.array([T]), capacity)

    def step(carry: Any, token: jax.Array) -> tuple[Any, jax.Array]:
        logits_BV, cache = carry
        logprob = jax.nn.log_softmax(logits_BV[0].astype(jnp.float32))[token]
        return decoder.write(params, extra, token[None], cache), logprob

    return jax.lax.scan(step, (logits_BV, cache), tokens_N)[1].sum()
