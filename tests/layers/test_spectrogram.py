"""Spectrograms against SciPy and transformers; inverses against the sounds that went in.

Compared once with librosa 0.11 (size 512, hop 160, 40 bands): the largest difference was 4e-6 for stft,
8e-6 for decibels and 2e-5 for MFCC. librosa is not installed with the tests.
Dimensions: S samples, T frames, F bins.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import scipy.signal

from jaxmodels.layers import mel
from jaxmodels.layers.spectrogram import frame_segments, frames, griffin_lim, istft, stft
from jaxmodels.layers.spectrogram_input import SpectrogramInput, normalized

RATE = 16_000
RANDOM = np.random.default_rng(0)
SOUND = (0.1 * RANDOM.normal(size=8_000) + 0.3 * np.sin(np.arange(8_000) * 0.05)).astype(np.float32)


def test_frames_are_slices():
    x = np.arange(20, dtype=np.float32)[None]
    plain = frames(jnp.asarray(x), size=6, hop=4, center=False)[0]
    assert plain.tolist() == [x[0, i : i + 6].tolist() for i in range(0, 15, 4)]
    middle = frames(jnp.asarray(x), size=6, hop=4)[0]
    assert middle.shape[0] == 1 + 20 // 4 and middle[:, 3].tolist() == [0, 4, 8, 12, 16, 0]
    reflected = frames(jnp.asarray(x), size=6, hop=4, padding="reflect")[0]
    assert reflected[0].tolist() == [3, 2, 1, 0, 1, 2]


@pytest.mark.parametrize("width", [None, 400])
def test_the_transform_is_that_of_each_frame_under_scipys_window(width):
    window = np.pad(scipy.signal.get_window("hann", width or 512), (512 - (width or 512)) // 2)
    padded = np.pad(SOUND, 256).astype(np.float64)
    got = np.asarray(stft(jnp.asarray(SOUND)[None], size=512, hop=160, width=width))[0]
    direct = np.stack([np.fft.rfft(padded[i : i + 512] * window) for i in range(0, 8_000 + 1, 160)])
    np.testing.assert_allclose(got, direct, atol=1e-4)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("norm", ["area", "none"])
def test_filters_are_triangles_between_frequencies_that_are_equally_far_apart_in_mels(scale, norm):
    filters = mel.mel_filters(rate=RATE, size=4096, bands=20, low=100.0, high=6_000.0, scale=scale, norm=norm)
    hertz = np.linspace(0, RATE / 2, 2049)
    peaks = hertz[filters.argmax(0)]
    steps = np.diff(mel.hertz_to_mel(peaks, scale))
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.1)
    assert not filters[(hertz < 100) | (hertz > 6_000)].any() and (filters >= 0).all()
    areas = filters.sum(0) * hertz[1]
    if norm == "area":
        np.testing.assert_allclose(areas, 1, rtol=0.02)
    else:
        assert filters.max() <= 1 and filters.max(0).min() > 0.9
    np.testing.assert_allclose(mel.mel_to_hertz(mel.hertz_to_mel(hertz, scale), scale), hertz, atol=1e-8)


def test_mels_have_their_published_values():
    np.testing.assert_allclose(mel.hertz_to_mel(np.array([1000.0]), "htk"), 999.99, atol=0.01)
    np.testing.assert_allclose(mel.hertz_to_mel(np.array([60.0, 1000.0, 6400.0])), [0.9, 15.0, 42.0])


def test_filters_and_features_are_those_of_whisper(real):
    held = np.load(real("tokenizers") / "whisper_mel_filters.npz", allow_pickle=False)
    for bands in (80, 128):
        got = mel.mel_filters(rate=RATE, size=400, bands=bands).T
        np.testing.assert_allclose(got, held[f"mel_{bands}"], atol=1e-7)


@pytest.mark.parametrize("bands", [80, 128])
def test_whispers_features_are_those_of_transformers(bands):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    extractor = transformers.WhisperFeatureExtractor(feature_size=bands, chunk_length=2)
    want = extractor(SOUND, sampling_rate=RATE, return_tensors="np")["input_features"][0].T
    padded = np.pad(SOUND, (0, 2 * RATE - len(SOUND)))
    got = jax.jit(lambda x: mel.whisper_log_mel(x, bands=bands))(padded[None])[0]
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_cepstra_are_the_cosine_transform_of_decibels():
    options = {"rate": RATE, "size": 512, "hop": 160, "bands": 40}
    power = np.asarray(mel.mel_power(SOUND[None], **options), np.float64)
    want = scipy.fft.dct(10 * np.log10(np.maximum(power, 1e-10)), norm="ortho")[..., :13]
    np.testing.assert_allclose(mel.mfcc(SOUND[None], coefficients=13, **options), want, atol=1e-3)
    loud = np.array([[[1.0, 1e-9, 1e-20]]])
    np.testing.assert_allclose(mel.decibels(jnp.asarray(loud)), [[[0, -80, -80]]], atol=1e-4)
    np.testing.assert_allclose(mel.decibels(jnp.asarray(loud), range=None), [[[0, -90, -100]]], atol=1e-4)


def test_whole_numbers_are_heard_as_their_floats():
    whole = (SOUND * 2**15).round().astype(np.int16)
    options = {"rate": RATE, "size": 512, "hop": 160, "bands": 20}
    same = mel.log_mel(jnp.asarray(whole[None] / np.float32(2**15)), **options)
    np.testing.assert_allclose(mel.log_mel(jnp.asarray(whole)[None], **options), same, atol=1e-5)
    with pytest.raises(ValueError, match="got samples of int32; expected floats"):
        mel.log_mel(jnp.asarray(whole, jnp.int32)[None], **options)


@pytest.mark.parametrize("width", [None, 400])
def test_the_inverse_gives_the_sound_back(width):
    x = stft(jnp.asarray(SOUND)[None], size=512, hop=128, width=width)
    got = istft(x, hop=128, width=width, length=len(SOUND))
    np.testing.assert_allclose(got[0], SOUND, atol=1e-5)


def test_griffin_and_lims_distance_never_grows_and_momentum_ends_nearer():
    magnitude = jnp.abs(stft(jnp.asarray(SOUND)[None], size=256, hop=64))

    def distance(iterations, momentum):
        sound = griffin_lim(
            magnitude, hop=64, iterations=iterations, momentum=momentum, key=jax.random.key(0)
        )
        again = jnp.abs(stft(sound, size=256, hop=64))
        return float(jnp.linalg.norm(again - magnitude) / jnp.linalg.norm(magnitude))

    plain = [distance(n, 0.0) for n in (1, 4, 16)]
    assert plain == sorted(plain, reverse=True) and distance(16, 0.99) < plain[-1] < 0.5


def test_a_tone_comes_back_from_its_mel_spectrogram():
    tone = np.sin(2 * np.pi * 1_000 * np.arange(8_000) / RATE).astype(np.float32)
    filters = mel.mel_filters(rate=RATE, size=512, bands=80)
    power = mel.mel_power(tone[None], rate=RATE, size=512, hop=128, bands=80)
    sound = griffin_lim(mel.mel_to_magnitude(power, filters), hop=128, length=8_000)[0]
    spectrum = abs(np.fft.rfft(np.asarray(sound)[1_000:-1_000]))
    assert abs(spectrum.argmax() / 6_000 * RATE - 1_000) < 20
    np.testing.assert_allclose(np.std(sound[1_000:-1_000]), np.sqrt(0.5), rtol=0.15)


class Sum:
    """Stands for a model: what it is given."""

    def __call__(self, x, keys_B, segments_BT=None):
        return x, segments_BT


def test_padding_changes_no_real_frame():
    features = lambda x: mel.log_mel(x, rate=8_000, size=256, hop=80, bands=20)  # noqa: E731
    layer = SpectrogramInput(model=Sum(), features=features, hop=80)
    short = np.ones((1, 1_000), np.int32)
    long = np.pad(short, ((0, 0), (0, 700)))
    sound = SOUND[None, :1_000]
    (a, real), (b, padded) = (
        layer.apply({}, np.pad(sound, ((0, 0), (0, s.shape[1] - 1_000))), None, s) for s in (short, long)
    )
    assert real.tolist() == [[1] * 13] and padded.tolist() == [[1] * 13 + [0] * 9]
    np.testing.assert_allclose(b[:, :13], a, atol=1e-5)
    assert not b[:, 13:].any()


def test_features_of_real_frames_have_mean_0_and_variance_1():
    real = np.arange(9)[None, :, None] < np.array([9, 4])[:, None, None]
    x = np.asarray(normalized(jnp.asarray(RANDOM.normal(3, 2, (2, 9, 5))), jnp.asarray(real)))
    for row, count in zip(x, (9, 4), strict=True):
        np.testing.assert_allclose(row[:count].mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(row[:count].std(0), 1, atol=1e-3)
    given = RANDOM.normal(3, 2, (2, 9, 5))
    x = np.asarray(normalized(jnp.asarray(given), jnp.asarray(real), together=True))
    for row, count, one in zip(x, (9, 4), given, strict=True):
        want = (one[:count] - one[:count].mean()) / one[:count].std()
        np.testing.assert_allclose(row[:count], want, atol=1e-4)


def test_a_frame_has_the_segment_of_its_middle():
    segments = jnp.asarray([[1] * 5 + [2] * 3 + [0] * 2])
    assert frame_segments(segments, hop=4).tolist() == [[1, 1, 0]]
    assert frame_segments(segments, hop=5).tolist() == [[1, 2, 0]]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: frames(x, size=0, hop=1), "got size=0, hop=1; expected at least 1"),
        (lambda x: frames(x, size=9_000, hop=1, center=False), "got 8000 samples; expected at least 9000"),
        (lambda x: frames(x, size=20_000, hop=1, padding="reflect"), "samples to reflect 10000 of"),
        (lambda x: stft(x, size=8, hop=2, width=9), "got a window of 9 samples for frames of 8"),
        (lambda x: mel.mel_filters(rate=8_000, size=8, bands=4, high=5_000.0), "expected at least one band"),
        (lambda x: mel.mfcc(x, coefficients=5, bands=4, rate=8, size=8, hop=4), "got 5 coefficients of 4"),
    ],
)
def test_senseless_sizes_are_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call(jnp.asarray(SOUND)[None])


def test_powers_of_mel_bands_are_found_again_in_the_powers_of_frequencies():
    from jaxmodels.layers.mel import inverse_mel, mel_filters

    options = {"rate": 8000, "size": 64}
    filters_FM = mel_filters(bands=12, **options)
    power_BTF = np.random.default_rng(0).uniform(0.1, 1, (1, 3, 33)).astype(np.float32)
    found_BTF = inverse_mel(power_BTF @ filters_FM, steps=300, **options)
    assert found_BTF.shape == power_BTF.shape and found_BTF.min() >= 0
    np.testing.assert_allclose(found_BTF @ filters_FM, power_BTF @ filters_FM, rtol=1e-2)
