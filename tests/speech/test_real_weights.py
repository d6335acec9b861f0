"""Whisper tiny on recordings, beside transformers with the same weights."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from speech import whisper_tiny

from jaxmodels.data.formats.audio_file import read_audio
from jaxmodels.inference.transcriber import open_transcriber

JFK = (
    "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
)


def clips(real):
    return [
        real("speech_samples") / "jfk.flac",
        *sorted((real("ljspeech32") / "wavs").glob("*.wav")),
    ]


@pytest.fixture(scope="module")
def transcriber():
    return open_transcriber(whisper_tiny.folder())


@pytest.mark.slow
def test_a_real_recording_is_understood(transcriber, real):
    audio_S = read_audio(real("speech_samples") / "jfk.flac", rate=16_000)
    said = transcriber(audio_S)
    assert "".join(x for x in said.text.lower() if x.isalpha() or x == " ") == JFK
    assert said.language == "en" and said.seconds == 11
    times = [second for segment in said.segments for second in segment[:2]]
    assert times == sorted(times) and times[0] == 0 and times[-1] == 11


@pytest.mark.thorough
def test_the_folder_that_is_written_gives_transformers_the_same_greedy_tokens(transcriber, real, tmp_path):
    """On every clip, with times and without."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from jaxmodels.convert.save import convert
    from jaxmodels.decoding.beam import beam
    from jaxmodels.layers.mel import whisper_log_mel
    from jaxmodels.speech.listening import writer

    convert(whisper_tiny.folder(), tmp_path / "whisper")
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "whisper").eval()
    symbols, log_mel = transcriber.symbols, jax.jit(whisper_log_mel)
    writers = {times: writer(transcriber.model, symbols, times=times) for times in (True, False)}
    for clip in clips(real):
        audio_S = read_audio(clip, rate=16_000)
        padded = np.pad(audio_S, (0, transcriber.samples - len(audio_S)))[None]
        features = torch.tensor(np.asarray(log_mel(padded)).swapaxes(1, 2))
        source = transcriber.hear(audio_S).source
        for times in (True, False):
            prompt = symbols.prompt("en", "transcribe", times=times)
            with torch.no_grad():
                want = theirs.generate(features, return_timestamps=times, max_new_tokens=100)[0].tolist()
            found = beam(
                writers[times],
                transcriber.params,
                source,
                np.array([prompt]),
                np.array([len(prompt)]),
                width=1,
                tokens=100,
                alpha=0.0,
            )
            got = np.asarray(found.tokens_BKN)[0, 0, : int(found.count_BK[0, 0])].tolist()
            plain = [token for token in want if token not in (*prompt, symbols.end)]
            assert got == plain, clip.name


@pytest.mark.thorough
@pytest.mark.parametrize("beams", [0, 5])
def test_few_words_of_real_recordings_are_wrong(transcriber, real, beams):
    """By transformers' normalisation of English, without its table of spellings: `-s` prints the rate.

    The normalisation drops what one text has in brackets, 12 words that are heard.
    """
    jiwer = pytest.importorskip("jiwer")
    normalizer = pytest.importorskip("transformers.models.whisper.english_normalizer")
    plain = normalizer.EnglishTextNormalizer({})
    folder = real("ljspeech32")
    rows = [line.split("|") for line in (folder / "metadata.csv").read_text().splitlines()]
    texts = [plain(row[-1]) for row in rows]
    audio = [read_audio(folder / "wavs" / f"{row[0]}.wav", rate=16_000) for row in rows]
    said = [plain(transcriber(x, beams=beams).text) for x in audio]
    rate = jiwer.wer(texts, said)
    words = sum(len(text.split()) for text in texts)
    print(f"word error rate {rate:.4f} of {words} words, {beams} beams")
    assert rate < 0.08
