"""Texts from prompts: sampling or beam search, stop strings, and text as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.decoding.beam import beam
from jaxmodels.decoding.sample import How, sample
from jaxmodels.task import Decoder


class Written(NamedTuple):
    """What follows a prompt."""

    prompt: str
    text: str
    tokens: list[int]
    logprobs: list[float]  # of the tokens, natural logarithms; empty with beams
    score: float  # sum of the log-probabilities, or the beam's
    source: bool = False  # whether the text is made of the prompt, instead of going on from it

    @property
    def whole(self) -> str:
        """What there is to read: the text, behind the prompt where it goes on from it."""
        return self.text if self.source else self.prompt + self.text


def write(
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
) -> list[Written]:
    """One text for each prompt; how: see How.

    stop: strings that end a text and are not part of it. beams: the best of a beam search with the length penalty's alpha
    (then nothing is drawn). show(number of the prompt, new text) is called as text comes, first with the prompt where a text
    goes on from it.
    """
    if not prompts:
        raise ValueError("there is no prompt; wanted at least one; give --prompt some text")
    encoded = [list(decoder.encode(prompt)) for prompt in prompts]
    if show is not None and not decoder.source:
        for b, prompt in enumerate(prompts):
            show(b, prompt)
    if beams:
        found = _search(decoder, params, extra, prompts, encoded, beams, alpha, How(**how))
        found = [wrote._replace(text=_until(stop, wrote.text)) for wrote in found]
        for b, wrote in enumerate(found if show is not None else ()):
            show(b, wrote.text)  # type: ignore[misc]
        return found
    tokens: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
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
            tokens[b] += new[b]
            logprobs[b] += new_logprobs[b]
            texts[b] = decoder.decode(tokens[b])
            whole, texts[b] = texts[b], _until(stop, texts[b])
            stopped[b] = len(texts[b]) < len(whole)
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
    return [Written(*row, sum(row[-1]), decoder.source) for row in zip(prompts, texts, tokens, logprobs, strict=True)]


def _until(stop: Sequence[str], text: str) -> str:
    """The text before the first of the stop strings."""
    places = [place for place in (text.find(s) for s in stop if s) if place >= 0]
    return text[: min(places)] if places else text


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
    how: How,
) -> list[Written]:
    how.check()
    begin = [] if decoder.begin is None or decoder.source else [decoder.begin]
    rows = [begin + tokens for tokens in encoded]
    if not all(rows):
        raise ValueError("the prompt is empty and the model has no token to begin with; give --prompt some text")
    tokens_BT = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, tokens in zip(tokens_BT, rows, strict=True):
        row[: len(tokens)] = tokens
    count_B = np.array([len(tokens) for tokens in rows], np.int32)
    found = beam(decoder, params, extra, tokens_BT, count_B, width=beams, tokens=how.tokens, alpha=alpha)
    out = []
    for b, prompt in enumerate(prompts):
        tokens = np.asarray(found.tokens_BKN)[b, 0, : int(found.count_BK[b, 0])].tolist()
        out.append(Written(prompt, decoder.decode(tokens), tokens, [], float(found.score_BK[b, 0]), decoder.source))
    return out
