"""Phonemes of a text by eSpeak NG, as voices of Piper learned them.

    pip install 'jaxmodels[espeak-gpl]'

installs piper-tts, which has eSpeak NG built in. Both are under the GPL, version 3 or later: a program that
is distributed with them comes under it too. Nothing else here needs them; phonemes can be given directly.
"""

from __future__ import annotations


def sentences(text: str, language: str) -> list[str]:
    """The phonemes of each sentence of a text (decomposed IPA and punctuation); language: such as en-us."""
    if not text.strip():
        raise ValueError("phonemes: got an empty text; expected words. Give some.")
    try:
        from piper.phonemize_espeak import EspeakPhonemizer
    except ImportError as error:
        raise ImportError(
            "phonemes: got no piper-tts; expected it, to turn text into phonemes. "
            "pip install 'jaxmodels[espeak-gpl]' (under the GPL), or give phonemes in place of text."
        ) from error
    try:
        found = EspeakPhonemizer().phonemize(language, text)
    except Exception as error:  # eSpeak's own, for a language that it lacks
        raise ValueError(
            f"phonemes: got the language {language!r} and {error} from eSpeak NG; expected one that it has. "
            "Correct the voice's file, or give phonemes."
        ) from error
    return ["".join(sentence) for sentence in found]
