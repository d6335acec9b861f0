"""jaxmodels speak: text, or phonemes, as a sound."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class SpeakOptions:
    """What is said, and how."""

    phonemes: str = ""
    """Symbols of the voice, such as "həlˈoʊ.", in place of a text."""
    speed: float = 1.0
    """Of speech; 2 is twice as fast."""
    noise: float | None = None
    """Variation of the sound, 0 for none; by default the voice's own."""
    duration_noise: float | None = None
    """Variation of durations, 0 for none; by default the voice's own."""
    seed: int = 0
    """Of the variation."""
    out: str = "speech.wav"
    """The WAV file that is written."""


class Spoken(NamedTuple):
    """A sound, and what is said in it."""

    audio_N: np.ndarray
    """Samples, float32, -1 to 1."""
    rate: int
    """Samples a second."""
    sentences: list[str]
    """The symbols of each sentence."""


def speak(
    voice: str | os.PathLike[str],
    text: str = "",
    *,
    phonemes: str = SpeakOptions.phonemes,
    speed: float = SpeakOptions.speed,
    noise: float | None = SpeakOptions.noise,
    duration_noise: float | None = SpeakOptions.duration_noise,
    seed: int = SpeakOptions.seed,
    out: str | os.PathLike[str] = SpeakOptions.out,
    warn: Any = print,
) -> Spoken:
    """Says a text, or phonemes, and writes the WAV file `out`.

    voice: the .onnx file of a voice of Piper, or a folder of Hugging Face's VITS. Of a text's phonemes, those
    that the voice lacks are left out, with a warning; phonemes that are given must be its own.
    """
    from jaxmodels.data.formats.audio import wav
    from jaxmodels.inference.voice import open_voice
    from jaxmodels.runs.files import write_bytes

    if bool(text.strip()) == bool(phonemes.strip()):
        both = "a text and phonemes" if text.strip() else "neither a text nor phonemes"
        raise ValueError(f"speak: got {both}; expected one of them. Give VOICE TEXT, or --phonemes.")
    opened = open_voice(voice)
    sentences = [phonemes] if phonemes else opened.sentences(text)
    unknown = [] if phonemes else opened.unknown("".join(sentences))
    for symbol in unknown:
        warn(f"speak: the voice has no {symbol!r} (U+{ord(symbol):04X}); it is left out")
    sentences = [opened.spelled(sentence, without=unknown) for sentence in sentences]
    if not opened.language:
        sentences = [sentence.strip() for sentence in sentences]
    audio_N = opened(sentences, speed=speed, noise=noise, duration_noise=duration_noise, seed=seed)
    write_bytes(out, wav(audio_N, opened.rate))
    return Spoken(audio_N, opened.rate, sentences)
