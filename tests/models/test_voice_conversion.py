"""Voice conversion: instance normalisation, padding, the bottleneck. B batch, T frames, F features."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.models.voice_conversion import VoiceConverter, halved, instance_norm
from jaxmodels.tasks.voice_conversion import converted, voice_conversion, warped

RANDOM = np.random.default_rng(0)
SMALL = VoiceConverter(3, width=8, depth=2, code=3, kernel=3)
X = RANDOM.normal(size=(2, 10, 5)).astype(np.float32)
SPEAKER = np.array([0, 2], np.int32)


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: SMALL.init(key, X, speaker_B=SPEAKER))(jax.random.key(0))


def test_a_normalised_instance_has_mean_0_and_variance_1_over_its_real_frames():
    real = (np.arange(10) < np.array([[10], [6]]))[..., None]
    got = np.asarray(instance_norm(jnp.asarray(3 * X + 7), jnp.asarray(real), 0.0))
    for row, n in enumerate((10, 6)):
        np.testing.assert_allclose(got[row, :n].mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(got[row, :n].std(0), 1, atol=1e-4)
        assert not got[row, n:].any()


def test_a_gain_and_an_offset_of_a_channel_leave_no_trace_in_a_normalised_instance():
    real = jnp.ones((2, 10, 1), bool)
    moved = X * np.array([2, 0.5, 3, 1, 7], np.float32) + np.arange(5, dtype=np.float32)
    got, want = (instance_norm(jnp.asarray(x), real, 0.0) for x in (moved, X))
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_half_the_frames_are_means_of_two_and_padding_is_left_out():
    real = (np.arange(5) < np.array([[5], [3]]))[..., None]
    x, left = halved(jnp.asarray(X[:, :5]), jnp.asarray(real))
    np.testing.assert_allclose(x[0], [X[0, :2].mean(0), X[0, 2:4].mean(0), X[0, 4]], rtol=1e-5)
    np.testing.assert_allclose(x[1, :2], [X[1, :2].mean(0), X[1, 2]], rtol=1e-5)
    assert left[..., 0].tolist() == [[True, True, True], [True, True, False]]


def test_padding_changes_no_real_frame(params):
    apply = jax.jit(SMALL.apply)
    want = apply(params, X[1:, :7], speaker_B=SPEAKER[1:])
    segments = np.arange(10) < 7
    got = apply(params, X[1:], speaker_B=SPEAKER[1:], segments_BT=segments[None].astype(np.int32))
    np.testing.assert_allclose(got[:, :7], want, atol=1e-5)


def test_the_speaker_changes_what_is_said_and_noise_comes_with_keys_alone(params):
    apply = jax.jit(SMALL.apply)
    plain = apply(params, X, speaker_B=SPEAKER)
    assert np.abs(apply(params, X, speaker_B=np.array([1, 2], np.int32)) - plain).max((1, 2))[0] > 0.01
    noisy = apply(params, X, jax.random.split(jax.random.key(0), 2), speaker_B=SPEAKER)
    assert np.abs(noisy - plain).max() > 0.01
    np.testing.assert_array_equal(apply(params, X, speaker_B=SPEAKER), plain)


def test_a_warped_spectrum_has_the_features_of_stretched_places():
    x = np.arange(6, dtype=np.float32)[None, None] ** 2
    got = np.asarray(warped(jnp.asarray(np.tile(x, (3, 1, 1))), jnp.array([1.0, 2.0, 0.5])))
    want = [np.interp(np.arange(6) * factor, np.arange(6), x[0, 0]) for factor in (1, 2, 0.5)]
    np.testing.assert_allclose(got[:, 0], want, rtol=1e-5)


def test_a_converted_sound_is_that_of_the_target_and_the_loss_that_of_the_own_speaker(params):
    def features(audio_BS):
        return audio_BS.reshape(2, 10, 5)

    batch = {
        "audio": X.reshape(2, 50),
        "segments": np.ones((2, 50), np.int32),
        "speaker": SPEAKER,
        "target": np.array([1, 1], np.int32),
        "weight": np.ones(2, np.float32),
    }
    predict = jax.jit(converted(SMALL, features, 5, lambda x_BTF, samples: x_BTF.reshape(2, samples)))
    apply = jax.jit(SMALL.apply)
    want = apply(params, X, speaker_B=batch["target"])
    np.testing.assert_allclose(predict(params["params"], {}, batch).reshape(X.shape), want, atol=1e-5)
    task = voice_conversion(SMALL, features, 5, 3)
    loss = jax.jit(task.evaluate)(params["params"], {}, batch)["loss"]
    own = apply(params, X, speaker_B=SPEAKER)
    np.testing.assert_allclose(loss.total / loss.weight, np.abs(own - X).mean(), rtol=1e-4)


@pytest.mark.parametrize(("T", "kernel"), [(1, 3), (4, 2)])
def test_too_few_frames_and_an_even_kernel_are_refused(T, kernel):
    with pytest.raises(ValueError, match="expected at least 2 frames and an odd kernel"):
        jax.eval_shape(
            lambda: SMALL.clone(kernel=kernel).init(jax.random.key(0), X[:, :T], speaker_B=SPEAKER)
        )
