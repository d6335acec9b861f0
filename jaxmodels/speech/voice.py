"""A voice: VITS with the table of its symbols. Phonemes, or text, become sound.

    text ──phonemes──► symbols ──table──► tokens ──plan──► frames of each ──say──► samples

Sentences are said one after the other, each alone. Lengths are rounded up to a few, so that few programs are
compiled; what is padded changes no sound.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np

from jaxmodels import keys
from jaxmodels.speech import phonemes

LONGEST = 120  # seconds of a sentence
MOST = 2000  # symbols of a sentence


@dataclass(frozen=True, eq=False)
class Voice:
    """A voice that speaks; see jaxmodels.inference.voice.open_voice."""

    model: Any
    params: Any
    rate: int
    """Samples a second."""
    symbols: Mapping[str, tuple[int, ...]]
    """The tokens of each symbol: a phoneme, punctuation, or a letter."""
    begin: tuple[int, ...] = ()
    """Tokens before a sentence."""
    blank: tuple[int, ...] = ()
    """Tokens after the beginning and after each symbol."""
    end: tuple[int, ...] = ()
    """Tokens after a sentence."""
    language: str = ""
    """For eSpeak NG; "" for a voice that reads letters."""
    lower: bool = False
    """Whether letters that are no symbols are tried as small ones."""
    noise: float = 0.667
    """The deviation of sounds, as a part of what was learned, where a call says nothing else."""
    duration_noise: float = 0.8
    """The same of durations."""

    def sentences(self, text: str) -> list[str]:
        """The symbols of each sentence of a text; a voice that reads letters takes it as one."""
        if self.language:
            return phonemes.sentences(text, self.language)
        letters = [x if x in self.symbols or not self.lower else x.lower() for x in text]
        return ["".join(letters).strip()]

    def unknown(self, symbols: str) -> list[str]:
        """Those of the symbols that this voice lacks, each once."""
        return [x for x in dict.fromkeys(self.spelled(symbols)) if x not in self.symbols]

    def spelled(self, symbols: str, *, without: Sequence[str] = ()) -> str:
        """The symbols; one that the voice lacks as a letter and its accent. without: some to leave out."""
        parts = "".join(x if x in self.symbols else unicodedata.normalize("NFD", x) for x in symbols)
        return "".join(x for x in parts if x not in without)

    def tokens(self, symbols: str) -> np.ndarray:
        """The tokens (S) of a sentence; a ValueError names symbols that this voice lacks."""
        symbols = self.spelled(symbols)
        if unknown := self.unknown(symbols):
            named = ", ".join(f"{x!r} (U+{ord(x):04X})" for x in unknown[:10])
            raise ValueError(
                f"speak: got {named}; expected symbols of this voice, "
                f"{' '.join(sorted(self.symbols))}. "
                "Replace them, or leave them out."
            )
        if not symbols.strip() or len(symbols) > MOST:
            raise ValueError(
                f"speak: got a sentence of {len(symbols)} symbols; expected 1 to {MOST}. Give words, or "
                "split the sentence."
            )
        found = [*self.begin, *self.blank]
        for symbol in symbols:
            found += [*self.symbols[symbol], *self.blank]
        return np.array([*found, *self.end], np.int32)

    def __call__(
        self,
        sentences: Sequence[str],
        *,
        speed: float = 1.0,
        noise: float | None = None,
        duration_noise: float | None = None,
        seed: int = 0,
    ) -> np.ndarray:
        """The samples (N, float32, -1 to 1) of sentences, given by their symbols.

        speed: 2 is twice as fast. noise, duration_noise: None takes the voice's own, 0 has always the same.
        """
        for name, value, least in (("speed", speed, 0.1), ("noise", noise, 0), ("noise", duration_noise, 0)):
            if value is not None and not least <= value <= 10:
                raise ValueError(f"speak: got {name} {value}; expected {least} to 10. Change it.")
        tokens = [self.tokens(sentence) for sentence in sentences]
        key, parts = keys.root(seed), []
        for i, tokens_S in enumerate(tokens):
            keys_B = jax.random.fold_in(key, i)[None]
            size = _rounded(len(tokens_S), 32)
            real_S = (np.arange(size) < len(tokens_S)).astype(np.int32)
            padded_S = np.pad(tokens_S, (0, size - len(tokens_S)))
            chosen = self.duration_noise if duration_noise is None else duration_noise
            plan = self._plan(self.params, padded_S[None], keys_B, real_S[None], chosen, speed)
            count = float(np.asarray(plan.duration_BS, np.float64).clip(0).sum())
            hop = self.model.decoder.hop
            if count * hop > LONGEST * self.rate or (np.asarray(plan.duration_BS) < 0).any():
                raise ValueError(
                    f"speak: got a sentence of {count * hop / self.rate:.0f} seconds; expected at most "
                    f"{LONGEST}. Split it, or raise the speed."
                )
            frames = _rounded(int(count), 64)
            chosen = self.noise if noise is None else noise
            speech = self._say(frames, self.params, plan, keys_B, chosen)
            parts.append(np.asarray(speech.audio_BN[0], np.float32)[: int(count) * hop])
        return np.concatenate([*parts, np.zeros(0, np.float32)])

    @cached_property
    def _plan(self) -> Callable[..., Any]:
        @jax.jit
        def plan(params, tokens_BS, keys_B, segments_BS, noise, speed):
            options = {"noise": noise, "speed": speed, "method": "plan"}
            return self.model.apply({"params": params}, tokens_BS, keys_B, segments_BS, **options)

        return plan

    @cached_property
    def _say(self) -> Callable[..., Any]:
        @partial(jax.jit, static_argnums=0)
        def say(frames, params, plan, keys_B, noise):
            options = {"frames": frames, "noise": noise, "method": "say"}
            return self.model.apply({"params": params}, plan, keys_B, **options)

        return say


def _rounded(count: int, least: int) -> int:
    """The next of least times 1, 1.5, 2, 3, 4, 6, ..."""
    size = least
    while size < count:
        if size + size // 2 >= count:
            return size + size // 2
        size *= 2
    return size
