"""A voice: VITS with the table of its symbols. Phonemes, or text, become sound.

    text ──phonemes──► symbols ──table──► tokens ──plan──► frames of each ──say──► samples

Sentences are said one after the other, each alone. Lengths are rounded up to a few, so that few programs are
compiled; what is padded changes no sound.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmodels import keys
from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.piper import load_piper
from jaxmodels.data.formats.json_file import read_object
from jaxmodels.speech import phonemes

LONGEST = 120  # seconds of a sentence
MOST = 2000  # symbols of a sentence


@dataclass(frozen=True, eq=False)
class Voice:
    """A voice that speaks; see open_voice."""

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


def open_voice(path: str | os.PathLike[str]) -> Voice:
    """The voice of a Piper file, .onnx with .onnx.json beside it, or of a folder of Hugging Face's VITS."""
    path = Path(path)
    if path.is_dir():
        return _hugging_face(path)
    if path.suffix != ".onnx":
        raise ValueError(
            f"{path}: got no voice; expected the .onnx file of a voice of Piper, or a folder of VITS with "
            "config.json and vocab.json. Check the path."
        )
    settings = path.with_name(path.name + ".json")
    found = read_object(settings)
    table = _table(settings, found.get("phoneme_id_map"))
    language, rate = _value(found, "espeak", "voice"), _value(found, "audio", "sample_rate")
    if found.get("phoneme_type", "espeak") != "espeak" or not isinstance(language, str) or not language:
        raise ValueError(
            f"{settings}: got phonemes of the type {str(found.get('phoneme_type'))[:80]!r} and the eSpeak "
            f"voice {str(language)[:80]!r}; expected those of eSpeak. Take another voice."
        )
    model, params, _, _ = load_piper(path)
    _check_tokens(settings, table, model.vocabulary)
    if absent := [mark for mark in "^_$" if mark not in table]:
        raise ValueError(
            f"{settings}: got no symbol {absent[0]!r}; expected it, for the ends of sentences and what lies "
            "between phonemes. Get the file again."
        )
    begin, blank, end = (table.pop(mark) for mark in "^_$")
    return Voice(
        model,
        params,
        _rate(settings, rate),
        table,
        begin,
        blank,
        end,
        language,
        noise=_noise(settings, _value(found, "inference", "noise_scale"), Voice.noise),
        duration_noise=_noise(settings, _value(found, "inference", "noise_w"), Voice.duration_noise),
    )


def _hugging_face(folder: Path) -> Voice:
    vocabulary, settings = folder / "vocab.json", folder / "tokenizer_config.json"
    read = read_object(settings) if settings.is_file() else {}
    table = _table(vocabulary, {x: [i] for x, i in read_object(vocabulary).items()})
    options = {"add_blank": True, "normalize": True, "phonemize": True, "is_uroman": False}
    options = {name: read.get(name, default) for name, default in options.items()}
    if options["is_uroman"]:
        raise ValueError(
            f"{settings}: got is_uroman; expected a voice that reads its language's letters. Take another."
        )
    model, params, _, config = load_pretrained(folder)
    if model.speakers > 1:
        raise ValueError(
            f"{folder}: got {model.speakers} speakers; expected a voice of one. Take another voice."
        )
    table = {x: tokens for x, tokens in table.items() if len(x) == 1}
    _check_tokens(vocabulary, table, model.vocabulary)
    return Voice(
        model,
        params,
        _rate(folder / "config.json", config.get("sampling_rate", 16_000)),
        table,
        blank=(0,) if options["add_blank"] else (),
        language="en-us" if options["phonemize"] else "",
        lower=bool(options["normalize"]),
        noise=_noise(folder, config.get("noise_scale"), Voice.noise),
        duration_noise=_noise(folder, config.get("noise_scale_duration"), Voice.duration_noise),
    )


def _value(found: Mapping[str, Any], part: str, name: str) -> Any:
    inner = found.get(part)
    return inner.get(name) if isinstance(inner, dict) else None


def _table(path: Path, table: Any) -> dict[str, tuple[int, ...]]:
    """Tokens by symbol, checked."""
    sound = isinstance(table, dict) and 0 < len(table) <= 100_000
    if not sound or not all(
        isinstance(tokens, list) and 0 < len(tokens) < 10 and all(type(i) is int for i in tokens)
        for tokens in table.values()
    ):
        raise ValueError(
            f"{path}: got no table of symbols; expected a list of whole numbers for each. Get the file again."
        )
    return {symbol: tuple(tokens) for symbol, tokens in table.items()}


def _check_tokens(path: Path, table: Mapping[str, tuple[int, ...]], vocabulary: int) -> None:
    for symbol, tokens in table.items():
        if not all(0 <= i < vocabulary for i in tokens):
            raise ValueError(
                f"{path}: got {tokens} for {symbol!r}; expected numbers below {vocabulary}, the model's "
                "vocabulary. See whether both files are of one voice."
            )


def _rate(path: Path, rate: Any) -> int:
    if type(rate) is not int or not 1000 <= rate <= 200_000:
        raise ValueError(
            f"{path}: got a rate of {str(rate)[:80]}; expected 1000 to 200,000 samples a second. Correct it."
        )
    return rate


def _noise(path: Path, value: Any, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
        raise ValueError(f"{path}: got noise {str(value)[:80]}; expected 0 to 10. Correct it.")
    return float(value)
