"""VITS with noise: what a sound depends on. Without noise it is compared in convert/test_vits.py."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.models.hifi_gan import HiFiGAN
from jaxmodels.models.vits import VITS

DECODER = HiFiGAN(4, (2,), (4,), (3,), ((1,),), last_bias=False)
SIZES = {"width": 8, "depth": 1, "hidden_width": 8, "latent": 4, "couplings": 1, "coupling_depth": 1}
MODEL = VITS(11, DECODER, **SIZES, durations="plain", duration_width=6, window=2)
TOKENS = np.array([[3, 1, 4, 1, 5], [9, 2, 0, 0, 0]], np.int32)
REAL = np.array([[1] * 5, [1, 1, 0, 0, 0]], np.int32)
KEYS = jax.random.split(jax.random.key(1), 2)


@pytest.fixture(scope="module")
def params():
    params = jax.jit(MODEL.init)(jax.random.key(0), TOKENS)["params"]
    leaves, tree = jax.tree.flatten(params)
    random = np.random.default_rng(0)
    return tree.unflatten([x + random.normal(size=x.shape).astype(np.float32) * 0.3 for x in leaves])


@partial(jax.jit, static_argnames="frames")
def speak(params, tokens, keys, real, frames, **noise):
    return MODEL.apply({"params": params}, tokens, keys, real, frames=frames, **noise)


def test_a_padded_sound_with_noise_is_the_one_that_it_is_alone_with_room_for_more_frames(params):
    both = speak(params, TOKENS, KEYS, REAL, 24)
    alone = speak(params, TOKENS[1:, :2], KEYS[1:], None, 40)
    count = 2 * int(alone.duration_BS.sum())
    assert 0 < count < both.audio_BN.shape[1] and both.segments_BT[0].sum() < 24
    np.testing.assert_allclose(alone.audio_BN[0, :count], both.audio_BN[1, :count], atol=1e-5)
    assert not np.any(both.audio_BN[1, count:])


def test_keys_change_a_sound_unless_the_noise_is_0(params):
    loud = speak(params, TOKENS, KEYS, REAL, 24).audio_BN
    other = speak(params, TOKENS, KEYS[::-1], REAL, 24).audio_BN
    assert np.abs(loud - other).max() > 1e-3
    silent = [speak(params, TOKENS, keys, REAL, 24, noise=0.0).audio_BN for keys in (KEYS, KEYS[::-1])]
    np.testing.assert_array_equal(*silent)


def test_speed_divides_the_durations(params):
    @jax.jit
    def durations(speed):
        return MODEL.apply({"params": params}, TOKENS, None, REAL, speed=speed, method="plan").duration_BS

    plan = {speed: durations(speed) for speed in (0.1, 1.0)}
    exact = np.asarray(plan[0.1]) / 10
    assert np.all((plan[1.0] >= exact) & (plan[1.0] < exact + 1.1)) and plan[1.0][1, 2:].sum() == 0


def test_a_model_of_several_speakers_asks_for_one(params):
    model = MODEL.clone(speakers=3, speaker_width=2)
    variables = jax.eval_shape(model.init, jax.random.key(0), TOKENS)
    with pytest.raises(ValueError, match="speaker_B"):
        jax.eval_shape(model.apply, variables, jnp.asarray(TOKENS))
