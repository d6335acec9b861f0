"""Recordings of any length as text: windows of 30 s, one after another (arXiv:2212.04356, section 4.5).

A window is written at a temperature of 0, by beams or greedily; a text that repeats itself, or that the model
finds unlikely, is written again at a higher temperature. Where the model hears "no speech", a window whose
text is unlikely has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmodels.decoding.beam import beam
from jaxmodels.decoding.sample import SamplingOptions, sample
from jaxmodels.speech.listening import HOP, Heard, compiled_listen, writer
from jaxmodels.speech.symbols import Symbols, Task
from jaxmodels.speech.windows import Span, compression, spans

RATE = 16_000
SHORTEST = 0.1  # seconds of a last window; what is shorter is not heard


class Fallback(NamedTuple):
    """When a window's text is written again, and when it has none; the values are the paper's code's."""

    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    compression: float = 2.4  # at most
    logprob: float = -1.0  # of a token on average, at least
    no_speech: float = 0.6  # probability from which an unlikely text is none
    samples: int = 5  # texts of a temperature above 0, of which the likeliest is taken


FALLBACK = Fallback()


class Segment(NamedTuple):
    """What was said from one second to another."""

    start: float
    end: float
    text: str
    tokens: list[int]
    logprob: float  # of a token of the window's text on average, natural logarithm
    no_speech: float  # probability that nobody speaks in the window
    compression: float  # of the window's text
    temperature: float


class Transcript(NamedTuple):
    """What was said in a recording."""

    text: str
    language: str
    seconds: float  # of the recording
    segments: list[Segment]


class _Text(NamedTuple):
    tokens: list[int]
    logprob: float  # on average
    temperature: float
    compression: float


class Transcriber:
    """A model that writes what it hears: transcriber(audio_S) for samples of 16 kHz."""

    def __init__(self, model: Any, params: Any, symbols: Symbols, decode: Callable[[Sequence[int]], str]):
        self.model, self.params, self.symbols, self.decode = model, params, symbols, decode

    @cached_property
    def _listen(self) -> Any:
        return compiled_listen(self.model, self.symbols)

    @cached_property
    def _writer(self) -> Any:
        return writer(self.model, self.symbols)

    @property
    def samples(self) -> int:
        """Of a window."""
        return self.model.frames * HOP

    def hear(self, audio_S: np.ndarray) -> Heard:
        """A window of at most `samples`, padded with silence."""
        window_1S = np.zeros((1, self.samples), np.float32)
        window_1S[0, : len(audio_S)] = audio_S[: self.samples]
        return self._listen(self.params, window_1S)

    def language(self, heard: Heard) -> str:
        """The likeliest language of a window; "en" where the model has no other."""
        if not self.symbols.multilingual:
            return "en"
        return [*self.symbols.languages][int(np.argmax(np.asarray(heard.languages)[0]))]

    def __call__(
        self,
        audio_S: np.ndarray,
        *,
        language: str = "",
        task: Task = "transcribe",
        beams: int = 0,
        condition: bool = False,
        fallback: Fallback = FALLBACK,
        seed: int = 0,
        show: Callable[[Segment], Any] | None = None,
    ) -> Transcript:
        """What is said in samples of 16 kHz.

        language: its code, such as "en"; "" is what the first window sounds like. task: "translate" writes
        English. beams: 0 is greedy. condition: each window also reads the text of the one before, which
        keeps names and style, and at times repeats a mistake. seed: of texts that are written again.
        show(segment) is called for each as soon as it is known.
        """
        self.symbols.check(language, task)
        if audio_S.ndim != 1 or beams < 0:
            raise ValueError(
                f"transcribe: got samples of the shape {audio_S.shape} and {beams} beams; expected one "
                "channel (S), and 0 or more. Take the mean of the channels."
            )
        heard, segments = self.hear(audio_S[: self.samples]), list[Segment]()
        language = language or self.language(heard)
        prompt, at, before = self.symbols.prompt(language, task), 0, list[int]()
        while True:
            part_S = audio_S[at : at + self.samples]
            tokens = self._prompt(prompt, before if condition else [])
            text = self._write(heard, tokens, beams, fallback, seed + at)
            found, seconds = spans(text.tokens, self.symbols, len(part_S) / RATE)
            if float(heard.no_speech[0]) > fallback.no_speech and text.logprob < fallback.logprob:
                found, seconds = [], len(part_S) / RATE
            for segment in self._segments(found, text, at / RATE, float(heard.no_speech[0])):
                segments.append(segment)
                if show is not None:
                    show(segment)
            # A text of a high temperature is a poor example for the next window.
            before = [*before, *(t for span in found for t in span.tokens)] if text.temperature < 0.5 else []
            at += max(HOP, round(seconds * RATE))
            if len(audio_S) - at < SHORTEST * RATE:
                break
            heard = self.hear(audio_S[at : at + self.samples])
        said = "".join(segment.text for segment in segments).strip()
        return Transcript(said, language, len(audio_S) / RATE, segments)

    def _segments(self, found: Sequence[Span], text: _Text, at: float, no_speech: float) -> Iterator[Segment]:
        for span in found:
            said = self.decode(span.tokens)
            if said.strip():
                facts = text.logprob, no_speech, text.compression, text.temperature
                yield Segment(round(at + span.start, 2), round(at + span.end, 2), said, span.tokens, *facts)

    def _prompt(self, start: list[int], before: list[int]) -> list[int]:
        """At most half of the model's length, the other half is for the text."""
        room = self.model.length // 2 - len(start) - 1
        return [self.symbols.previous, *before[-room:], *start] if before and room > 0 else start

    def _write(self, heard: Heard, prompt: list[int], beams: int, fallback: Fallback, seed: int) -> _Text:
        for temperature in fallback.temperatures:
            text = self._written(heard, prompt, beams, temperature, fallback.samples, seed)
            unlikely = text.logprob < fallback.logprob
            if unlikely and float(heard.no_speech[0]) > fallback.no_speech:
                return text
            if not unlikely and text.compression <= fallback.compression:
                return text
        return text

    def _written(
        self, heard: Heard, prompt: list[int], beams: int, temperature: float, samples: int, seed: int
    ) -> _Text:
        """The likeliest text that is found at a temperature."""
        limit = self.model.length // 2
        if beams and not temperature:
            tokens, total = self._searched(heard, prompt, beams, limit)
        else:
            count = samples if temperature else 1
            options = SamplingOptions(tokens=limit, temperature=temperature, seed=seed)
            texts, sums = [list[int]() for _ in range(count)], np.zeros(count)
            for new, logprobs, _ in sample(
                self._writer, self.params, heard.source, [prompt] * count, options
            ):
                for i in range(count):
                    texts[i] += new[i]
                    sums[i] += sum(logprobs[i])
            best = int(np.argmax([sums[i] / max(1, len(texts[i])) for i in range(count)]))
            tokens, total = texts[best], float(sums[best])
        said = self.decode([token for token in tokens if token < self.symbols.end])
        return _Text(tokens, total / max(1, len(tokens)), temperature, compression(said))

    def _searched(self, heard: Heard, prompt: list[int], beams: int, limit: int) -> tuple[list[int], float]:
        width = min(limit, 1 << (len(prompt) - 1).bit_length())
        tokens_1T = np.zeros((1, width), np.int32)
        tokens_1T[0, : len(prompt)] = prompt
        count_1 = jnp.array([len(prompt)], jnp.int32)
        inputs = (self.params, heard.source, tokens_1T, count_1)
        found = beam(self._writer, *inputs, width=beams, tokens=limit, alpha=0.0)
        count_K, score_K = np.asarray(found.count_BK)[0], np.asarray(found.score_BK)[0]
        best = int(np.argmax(score_K / np.maximum(1, count_K)))  # the likeliest by token
        return np.asarray(found.tokens_BKN)[0, best, : count_K[best]].tolist(), float(score_K[best])
