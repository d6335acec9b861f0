"""Recordings that are not what their headers say: the same answer in every format."""

from __future__ import annotations

import struct
import wave

import numpy as np
import pytest

from jaxmodels.data.formats.audio import audio_folder

soundfile = pytest.importorskip("soundfile")
pytestmark = pytest.mark.fast

SOUND = np.sin(np.arange(8_000) / 9) * 0.5


def read(path, samples=8_000, **options):
    """The samples of one file, which the folder's readers know as .wav whatever its format."""
    (path.parent / "f" / "c").mkdir(parents=True, exist_ok=True)
    path.rename(path.parent / "f" / "c" / "x.wav")
    data = audio_folder(path.parent / "f", rate=8_000, samples=samples, batch=1, **options)
    return data.rows(0, 0, 1)["audio"][0]


KINDS = [
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("RF64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
]


@pytest.mark.parametrize("samples", [8_000, 100])
@pytest.mark.parametrize("kind, subtype", KINDS)
def test_complete_recordings_are_read_and_truncated_ones_refused(tmp_path, kind, subtype, samples):
    path = tmp_path / "a"
    soundfile.write(path, SOUND, 8_000, format=kind, subtype=subtype)
    content = path.read_bytes()
    np.testing.assert_allclose(read(path, samples), SOUND[:samples], atol=0.05 if kind == "OGG" else 1e-4)
    for part in (len(content) // 2, len(content) * 9 // 10):
        path.write_bytes(content[:part])
        with pytest.raises(ValueError, match=r"x\.wav.* could not be loaded"):
            read(path, samples)


def wav(frames, announced=None, after=b"", riff=None):
    data = np.asarray(frames, "<i2").tobytes()
    size = len(data) if announced is None else announced
    head = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8_000, 16_000, 2, 16)
    body = b"WAVE" + head + b"data" + struct.pack("<I", size) + data + after
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


def test_the_error_names_both_counts(tmp_path):
    (tmp_path / "a").write_bytes(wav(range(100), announced=800))
    with pytest.raises(
        ValueError,
        match="got a header that announces 400 frames, and an end after 100; expected a whole recording",
    ):
        read(tmp_path / "a")


@pytest.mark.parametrize(
    "content, said",
    [
        (
            wav(range(100), announced=100),
            "got a header that announces 50 frames, and 100 bytes after them that are no chunk",
        ),
        (wav(range(100), announced=0), "got a header that announces 0 frames, and 200 bytes after them"),
        (wav([]), "got a recording without samples"),
        (wav(range(100))[:40], "got an end before its samples begin"),
        (b"", "could not be loaded"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, content, said):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read(tmp_path / "a")


@pytest.mark.parametrize(
    "content",
    [
        wav(range(100), announced=0xFFFFFFFF, riff=0xFFFFFFFF),  # written to a pipe
        wav(range(100), after=b"LIST" + struct.pack("<I", 4) + b"INFO"),
        wav(range(100), after=b"TAG" + bytes(125)),
        wav(range(100), after=bytes(7)),
    ],
)
def test_streamed_wavs_and_what_players_append_are_read(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert np.array_equal(read(tmp_path / "a", 100), np.arange(100, dtype=np.float32) / 32768)


def test_silence_is_silence_and_samples_that_are_no_numbers_are_refused(tmp_path):
    with wave.open(str(tmp_path / "a"), "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes(bytes(200))
    assert not read(tmp_path / "a", 100).any()
    soundfile.write(tmp_path / "a", np.array([0, np.nan, 0]), 8_000, format="WAV", subtype="FLOAT")
    with pytest.raises(ValueError, match="got samples that are not finite numbers"):
        read(tmp_path / "a", 100)


def test_real_recordings_are_complete(real):
    from jaxmodels.data.formats.audio_header import check_complete

    files = [
        *real("ljspeech32").rglob("*.wav"),
        *real("speech_samples").rglob("*.wav"),
        *real("speech_samples").rglob("*.flac"),
    ]
    assert files
    for path in files:
        check_complete(path)
