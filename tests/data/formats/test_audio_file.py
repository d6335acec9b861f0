"""read_audio: any rate, any number of channels, 8 to 32 bits, the same answer in every format."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest
import scipy.signal
from fuzz import attempt, mutations
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.data.archive import Member
from jaxmodels.data.formats.audio import audio_folder
from jaxmodels.data.formats.audio_file import AudioReader, read_audio

soundfile = pytest.importorskip("soundfile", reason="needs soundfile")
pytest.importorskip("soxr", reason="needs soxr")
pytestmark = pytest.mark.fast

KINDS = [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")]


def written(path, audio, rate, kind="WAV", subtype="PCM_16"):
    soundfile.write(path, audio, rate, format=kind, subtype=subtype)
    return path


def tone(rate, hertz=440.0, seconds=0.5):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize(
    ("kind", "subtype", "step"),
    [
        ("WAV", "PCM_U8", 2**-7),
        ("WAV", "PCM_16", 2**-15),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "PCM_32", 2**-24),
        ("WAV", "FLOAT", 2**-24),
        ("WAV", "DOUBLE", 2**-24),
        ("FLAC", "PCM_S8", 2**-7),
        ("FLAC", "PCM_16", 2**-15),
        ("FLAC", "PCM_24", 2**-23),
    ],
)
def test_every_width_of_samples_is_read_to_within_its_step(tmp_path, kind, subtype, step):
    audio = tone(8_000)
    got = read_audio(written(tmp_path / "x", audio, 8_000, kind, subtype), rate=8_000)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, audio, atol=1.01 * step)


@pytest.mark.parametrize("kind, subtype", KINDS)
@pytest.mark.parametrize("have", [8_000, 11_025, 44_100])
def test_a_tone_of_any_rate_is_the_same_tone(tmp_path, kind, subtype, have):
    path = written(tmp_path / "x", np.stack([tone(have), 0 * tone(have)], 1), have, kind, subtype)
    got = read_audio(path, rate=16_000)
    assert abs(len(got) - 8_000) <= 1
    inner = slice(200, -200)
    np.testing.assert_allclose(got[inner], tone(16_000)[: len(got)][inner] / 2, atol=0.01)


def test_resampling_agrees_with_another_library(tmp_path):
    white = np.random.default_rng(0).normal(size=4_000) / 3
    audio = scipy.signal.lfilter(scipy.signal.firwin(101, 0.2), 1, white)  # nothing near either limit
    path = written(tmp_path / "x", audio, 12_000, "WAV", "FLOAT")
    got, want = read_audio(path, rate=16_000), scipy.signal.resample_poly(audio, 4, 3, window=("kaiser", 14))
    np.testing.assert_allclose(got[300:-300], want[300 : len(got) - 300], atol=2e-3 * abs(want).max())


def test_the_start_of_a_resampled_recording_is_that_of_the_whole(tmp_path):
    path = written(tmp_path / "x", np.random.default_rng(0).normal(size=60_000) / 5, 44_100, "FLAC")
    whole = read_audio(path, rate=8_000)
    np.testing.assert_allclose(read_audio(path, rate=8_000, samples=900), whole[:900], atol=1e-6)
    assert len(read_audio(path, rate=8_000, samples=10**6)) == len(whole)


def test_what_is_decoded_in_pieces_is_what_is_decoded_at_once(tmp_path, monkeypatch):
    path = written(tmp_path / "x", np.random.default_rng(0).normal(size=(5_000, 2)) / 5, 22_050)
    whole = read_audio(path, rate=16_000)
    monkeypatch.setattr("jaxmodels.data.formats.audio_file.PIECE", 300)
    np.testing.assert_allclose(read_audio(path, rate=16_000), whole, atol=1e-6)


def test_an_open_file_and_a_member_of_an_archive_are_read_as_the_file(tmp_path):
    path = written(tmp_path / "x.wav", tone(8_000), 8_000)
    with path.open("rb") as file:
        opened = read_audio(file, rate=8_000)
    for got in (opened, read_audio(io.BytesIO(path.read_bytes()), rate=8_000)):
        assert np.array_equal(got, read_audio(path, rate=8_000))
    assert np.array_equal(read_audio(Member("x.wav", path.read_bytes()), rate=8_000), opened)


@pytest.mark.parametrize("kind, subtype", KINDS)
@pytest.mark.parametrize("rate", [8_000, 6_000])
def test_silence_is_zeros_and_an_empty_recording_is_refused(tmp_path, kind, subtype, rate):
    silent = read_audio(written(tmp_path / "x", np.zeros(400), 8_000, kind, subtype), rate=rate)
    assert len(silent) > 0 and not silent.any()
    with pytest.raises(ValueError, match=r"x could not be read: got .*; expected .*\. \w"):
        read_audio(written(tmp_path / "x", np.zeros(0), 8_000, kind, subtype), rate=rate)


@pytest.mark.parametrize("kind, subtype", [("WAV", "PCM_U8"), ("FLAC", "PCM_S8")])
@pytest.mark.parametrize("rate", [1_000, 500])
def test_an_hour_is_read_and_a_day_is_refused(tmp_path, kind, subtype, rate, monkeypatch):
    path = written(tmp_path / "x", np.tile(tone(1_000, 50.0, 1.0), 3600), 1_000, kind, subtype)
    assert len(read_audio(path, rate=rate)) == 3600 * rate
    monkeypatch.setattr("jaxmodels.data.formats.audio_file.SAMPLES", 150 * rate)
    with pytest.raises(ValueError, match=r"got 3,600,000 samples in 1 channels, .* Divide the recording"):
        read_audio(path, rate=rate)
    assert len(read_audio(path, rate=rate, samples=100 * rate)) == 100 * rate


def test_a_header_with_an_absurd_rate_is_refused(tmp_path):
    with wave.open(str(tmp_path / "x"), "wb") as file:
        file.setparams((1, 2, 3, 0, "NONE", ""))
        file.writeframes(bytes(20))
    with pytest.raises(ValueError, match="got a recording of 3 Hz; expected a rate from 62 to 4,096,000 Hz"):
        read_audio(tmp_path / "x", rate=16_000)


@pytest.mark.parametrize("content", [b"", b"no sound", b"RIFF\0\0\0\0WAVE", b"fLaC" + bytes(99)])
def test_what_is_no_recording_is_refused_by_name(tmp_path, content):
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.wav could not be read: got .*; expected .*\. \w"):
        read_audio(tmp_path / "x.wav", rate=8_000)
    with pytest.raises(FileNotFoundError, match="expected a recording"):
        read_audio(tmp_path / "y.wav", rate=8_000)


@given(st.integers(1, 3), st.integers(1, 400), st.sampled_from([4_000, 7_350, 8_000, 48_000]))
def test_the_length_is_that_of_the_sound_at_the_wanted_rate(channels, frames, have):
    file = io.BytesIO()
    soundfile.write(file, np.zeros((frames, channels)), have, format="FLAC")
    file.seek(0)
    assert abs(len(read_audio(file, rate=8_000)) - frames * 8_000 / have) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_damaged_recordings_are_an_answer_or_one_clear_error(kind, capfd):
    file = io.BytesIO()
    soundfile.write(file, tone(8_000, seconds=0.1), 8_000, format=kind)
    for data in mutations(file.getvalue(), 120, seed=2):
        got = attempt(lambda data=data: read_audio(Member("x", data), rate=16_000))
        assert got is None or np.isfinite(got).all()
    assert capfd.readouterr().err == ""


def test_files_of_several_rates_make_one_batch(tmp_path):
    for name, rate in (("low/a.wav", 8_000), ("high/b.flac", 16_000)):
        (tmp_path / name).parent.mkdir()
        written(tmp_path / name, tone(rate), rate, name[-4:].strip(".").upper())
    batch = audio_folder(tmp_path, rate=8_000, samples=3_000, batch=2).rows(0, 0, 2)
    np.testing.assert_allclose(batch["audio"][0][100:], batch["audio"][1][100:], atol=2e-3)


def test_a_reader_pads_to_the_first_length_that_holds_the_sound(tmp_path):
    path = written(tmp_path / "x.wav", tone(8_000), 8_000)
    read = AudioReader(8_000, 8_000, (3_000, 5_000))
    example = read(path)
    assert example["audio"].shape == example["segments"].shape == (5_000,)
    assert example["segments"].sum() == 4_000 and not example["audio"][4_000:].any()
    assert len(AudioReader(8_000, 8_000)(path)["audio"]) == 8_000
    assert AudioReader(8_000, 900)(path)["segments"].tolist() == [1] * 900
