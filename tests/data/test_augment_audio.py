"""Random changes of sounds: what each does, and the same on host and device. S samples, T frames, F bins."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.data.augment_audio import gain, noise, random_crop, spec_augment, speed
from jaxmodels.data.keyed_random import uniform
from jaxmodels.data.order import mix

pytestmark = pytest.mark.fast
KEYS = mix(np.arange(500, dtype=np.uint64))
SOUND = np.random.default_rng(0).normal(size=(500, 300)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [gain(), noise(), random_crop(100), speed(), spec_augment(frequency=3, time=5)], ids=range(5)
)
def test_host_and_device_agree_and_an_example_depends_on_its_own_key_alone(change):
    x = SOUND[:40] if change.array == "audio" else SOUND[:40].reshape(40, 30, 10)
    u_BN = uniform(KEYS[:40], change.numbers, salt=change.salt)
    host = change({change.array: x, "label": KEYS[:40]}, KEYS[:40])
    np.testing.assert_allclose(change.apply(jnp.asarray(x), jnp.asarray(u_BN)), host[change.array], atol=2e-3)
    part = change({change.array: x[7:9], "label": KEYS[7:9]}, KEYS[7:9])[change.array]
    assert np.array_equal(part, host[change.array][7:9]) and host[change.array].dtype == np.float32
    assert not np.array_equal(host[change.array][..., :100], x[..., :100])


def test_gain_is_uniform_in_decibels():
    louder = gain(6.0)({"audio": SOUND}, KEYS)["audio"]
    decibels = 20 * np.log10(louder[:, 0] / SOUND[:, 0])
    assert -6 <= decibels.min() < -5 and 5 < decibels.max() <= 6 and abs(decibels.mean()) < 0.5


def test_noise_is_white_and_normal_and_as_strong_as_asked():
    added = noise(20.0, 20.0)({"audio": SOUND}, KEYS)["audio"] - SOUND
    power = 10 * np.log10((SOUND**2).mean(1) / (added**2).mean(1))
    assert abs(power.mean() - 20) < 0.1 and power.std() < 0.6
    z = (added / added.std(1, keepdims=True)).ravel()
    assert abs(z.mean()) < 0.02 and abs((z**3).mean()) < 0.05 and abs((z**4).mean() - 3) < 0.1
    between = added.reshape(500, 300)
    assert abs(np.corrcoef(between[0:400:2].ravel(), between[1:400:2].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(between[:, :-1].ravel(), between[:, 1:].ravel())[0, 1]) < 0.02
    assert not noise()({"audio": np.zeros((2, 9), np.float32)}, KEYS[:2])["audio"].any()


def test_a_crop_is_a_part_of_the_sound_and_every_part_occurs():
    ramp = np.tile(np.arange(12, dtype=np.float32), (500, 1))
    crops = random_crop(10)({"audio": ramp, "segments": ramp}, KEYS)
    assert set(crops["audio"][:, 0].tolist()) == {0, 1, 2} and (np.diff(crops["audio"], axis=1) == 1).all()
    assert np.array_equal(crops["segments"], crops["audio"])
    with pytest.raises(ValueError, match="got sounds of 12 samples; expected at least 13"):
        random_crop(13)({"audio": ramp}, KEYS)


def test_a_faster_tone_is_higher_and_its_padding_follows():
    tone = np.tile(np.sin(np.arange(4_000) / 10), (2, 1)).astype(np.float32)
    segments = np.tile(np.arange(4_000) < 3_000, (2, 1)).astype(np.int32)
    faster = speed(1.25, 1.25)({"audio": tone, "segments": segments}, KEYS[:2])
    np.testing.assert_allclose(faster["audio"][0, 1:3_000], np.sin(np.arange(1, 3_000) / 8), atol=2e-3)
    assert faster["segments"].sum(1).tolist() == [2_400] * 2 and not faster["audio"][:, 3_200:].any()
    same = speed(1.0, 1.0)({"audio": tone}, KEYS[:2])
    np.testing.assert_allclose(same["audio"], tone, atol=1e-6)


def test_masks_hide_whole_bands_and_stretches_by_the_mean():
    x = np.random.default_rng(1).normal(size=(500, 30, 10)).astype(np.float32)
    masked = spec_augment(frequency=3, time=5, masks=(1, 2))({"features": x}, KEYS)["features"]
    hidden = masked != x
    bands, stretches = hidden.all(1), hidden.all(2)
    assert np.array_equal(hidden, bands[:, None] | stretches[:, :, None])
    assert set(bands.sum(1)) == {0, 1, 2, 3} and stretches.sum(1).max() == 10
    mean = np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)
    np.testing.assert_allclose(masked[hidden], mean[hidden], atol=1e-6)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: noise(3.0, 1.0), "got 3.0 to 1.0 dB; expected low <= high"),
        (lambda: speed(0.0, 1.0), "got factors from 0.0 to 1.0; expected 0 < low"),
        (lambda: random_crop(0), "got samples=0"),
        (lambda: spec_augment(time=-1), "expected none below 0"),
    ],
    ids=["noise", "speed", "crop", "masks"],
)
def test_senseless_numbers_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
