"""Random numbers by example, and random changes of images. Dimensions: H W image, C channels."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxmodels.data.augment import color, crop, equalize, erase, flip, rand_augment, resized_crop, warp
from jaxmodels.data.keyed_random import bits, integers, uniform
from jaxmodels.data.order import mix
from jaxmodels.task import Task
from jaxmodels.tasks.augmented import augmented

pytestmark = pytest.mark.fast
KEYS = mix(np.arange(40_000, dtype=np.uint64))


def test_uniform_numbers_lie_evenly_in_the_unit_interval():
    x = uniform(KEYS, 2)
    assert x.dtype == np.float32 and x.min() >= 0 and x.max() < 1
    for column in x.T:
        count = np.bincount((column * 50).astype(int), minlength=50)
        assert ((count - 800) ** 2 / 800).sum() < 49 + 6 * np.sqrt(2 * 49)


def test_integers_take_every_value_equally_often():
    x = integers(KEYS, -3, 10, 1)[:, 0]
    count = np.bincount(x + 3, minlength=13)
    assert len(count) == 13 and ((count - 40_000 / 13) ** 2 / (40_000 / 13)).sum() < 12 + 6 * np.sqrt(24)


def test_columns_and_salts_are_independent():
    x = np.concatenate([uniform(KEYS, 2), uniform(KEYS, 2, salt=1), uniform(KEYS + np.uint64(1), 1)], 1)
    correlation = np.corrcoef(x.T) - np.eye(5)
    assert abs(correlation).max() < 5 / np.sqrt(len(KEYS))


def test_a_number_depends_on_its_own_key_alone():
    assert np.array_equal(bits(KEYS, 3)[5:7], bits(KEYS[5:7], 3)) and np.array_equal(
        bits(KEYS, 3)[:, :2], bits(KEYS, 2)
    )


def test_an_empty_range_of_integers_is_refused():
    with pytest.raises(ValueError, match="got low=3 and high=3"):
        integers(KEYS, 3, 3, 1)


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_rest():
    image = np.random.default_rng(0).random((400, 3, 4, 2))
    changed = flip({"image": image, "label": np.arange(400)}, KEYS[:400])["image"]
    same = np.array([np.array_equal(a, b) for a, b in zip(changed, image, strict=True)])
    mirrored = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(changed, image, strict=True)])
    assert (same ^ mirrored).all() and 150 < mirrored.sum() < 250


def test_crop_gives_one_of_the_shifted_images_and_each_shift_occurs():
    image = np.zeros((2_000, 9, 9, 1), np.uint8)
    image[:, 4, 4] = 1
    changed = crop(2)({"image": image}, KEYS[:2_000])["image"]
    assert changed.shape == image.shape and changed.dtype == np.uint8 and (changed.sum((1, 2, 3)) == 1).all()
    _, row, column, _ = np.nonzero(changed)
    count = np.bincount((row - 2) * 5 + column - 2, minlength=25)
    assert len(count) == 25 and ((count - 80) ** 2 / 80).sum() < 24 + 6 * np.sqrt(48)


# The same formulas on the host and on the device

CHANGES = {
    "flip": flip,
    "crop": crop(2),
    "color": color(),
    "erase": erase(0.5),
    "resized_crop": resized_crop(),
    "warp": warp(),
    "rand_augment": rand_augment(3, 20),
}
every = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def images(n=64, C=3):
    return np.random.default_rng(0).random((n, 9, 12, C)).astype(np.float32)


@pytest.mark.slow
@every
@pytest.mark.parametrize("C", [1, 3])
def test_host_and_device_change_alike(change, C):
    u = uniform(KEYS[:64], change.numbers, salt=99)
    host, device = change.apply(images(C=C), u), jax.jit(change.apply)(images(C=C), u)
    assert host.dtype == device.dtype == np.float32 and host.shape == device.shape == (64, 9, 12, C)
    near = np.isclose(host, device, atol=1e-4).mean()
    assert near > 0.995  # a rounding to bytes may fall to either side


@every
def test_an_example_changes_by_its_own_numbers_and_stays_in_range(change):
    u = uniform(KEYS[:64], change.numbers)
    whole = change.apply(images(), u)
    np.testing.assert_allclose(change.apply(images()[5:9], u[5:9]), whole[5:9], atol=1e-6)
    assert whole.min() >= -1e-6 and whole.max() <= 1 + 1e-6
    assert not np.allclose(whole, images())


def test_no_two_changes_have_the_same_salt():
    assert len({change.salt for change in CHANGES.values()}) == len(CHANGES)


def test_erasing_fills_a_rectangle_of_the_asked_size_with_the_mean():
    image = images(2_000, 1)
    got = erase(0.5, (0.2, 0.2), 1.0)({"image": image}, KEYS[:2_000])["image"]
    changed = (got != image)[..., 0]
    touched = changed.any((1, 2))
    assert 900 < touched.sum() < 1_100
    for i in np.flatnonzero(touched)[:50]:
        rows, columns = np.flatnonzero(changed[i].any(1)), np.flatnonzero(changed[i].any(0))
        assert changed[i][np.ix_(rows, columns)].all()
        np.testing.assert_allclose(got[i][changed[i]], image[i].mean(), rtol=1e-5)
    assert np.mean(changed[touched].mean((1, 2))) == pytest.approx(0.2, abs=0.02)


def test_a_crop_of_the_whole_image_is_the_image():
    np.testing.assert_allclose(
        resized_crop((1.0, 1.0), 1.0).apply(images(), np.full((64, 4), 0.3)), images(), atol=1e-5
    )


def test_a_crop_of_a_quarter_is_that_quarter_enlarged():
    """Of a ramp from left to right, the left half has half the slope."""
    ramp = np.broadcast_to(np.arange(12, dtype=np.float32)[None, None, :, None] / 12, (1, 9, 12, 1))
    got = resized_crop((0.25, 0.25), 1.0).apply(ramp, np.array([[0.0, 0.5, 0.5, 0.0]]))[0, 4, :, 0]
    np.testing.assert_allclose(np.diff(got)[1:], 0.5 / 12, atol=1e-4)
    assert got[-1] < 0.5


def test_nothing_turned_sheared_scaled_or_moved_is_the_image_and_half_a_turn_is_the_image_upside_down():
    none = np.full((64, 6), 0.5)
    np.testing.assert_allclose(warp().apply(images(), none), images(), atol=1e-5)
    turned = warp(angle=180, shear=0, scale=0, shift=0).apply(images(), np.ones((64, 6)))
    np.testing.assert_allclose(turned, images()[:, ::-1, ::-1], atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_equalisation_spreads_the_ranks_evenly(seed):
    image = (np.random.default_rng(seed).random((1, 40, 40, 1)) ** 3).astype(np.float32)
    got = np.sort(equalize(image).reshape(-1))
    np.testing.assert_allclose(got, np.linspace(0, 1, 1600), atol=0.2)
    assert got[0] == 0 and got[-1] == 1
    flat = np.full((1, 4, 4, 1), 0.3, np.float32)
    np.testing.assert_array_equal(equalize(flat), flat)


@pytest.mark.parametrize(
    ("op", "reference"),
    [
        (6, lambda p: ImageOps.autocontrast(p)),
        (8, lambda p: ImageOps.solarize(p, 256 - 128)),
        (9, lambda p: ImageOps.posterize(p, 6)),
        (10, lambda p: ImageEnhance.Color(p).enhance(1.45)),
        (11, lambda p: ImageEnhance.Contrast(p).enhance(1.45)),
        (12, lambda p: ImageEnhance.Brightness(p).enhance(1.45)),
        (13, lambda p: ImageEnhance.Sharpness(p).enhance(1.45)),
    ],
    ids=["autocontrast", "solarize", "posterize", "saturation", "contrast", "brightness", "sharpness"],
)
def test_changes_of_rand_augment_are_pillows_at_half_strength(op, reference):
    pixels = np.random.default_rng(0).integers(40, 200, (30, 40, 3), dtype=np.uint8)
    image = pixels[None].astype(np.float32) / 255
    got = rand_augment(1, 15).apply(image, np.array([[(op + 0.5) / 14, 0.9]]))[0]
    want = np.asarray(reference(Image.fromarray(pixels)), np.float32) / 255
    inner = (slice(1, -1), slice(1, -1))  # pillow sharpens no border
    np.testing.assert_allclose(got[inner], want[inner], atol=2.1 / 255)


def test_rand_augment_chooses_each_of_its_changes_equally_often():
    image = np.repeat(images(1), 2_000, 0)
    got = rand_augment(1, 9)({"image": image}, KEYS[:2_000])["image"]
    same = (got == image).all((1, 2, 3)).mean()
    assert 1 / 14 - 0.03 < same < 3 / 14  # no change; and what changes nothing in this image


# On the device, within the loss


@pytest.mark.slow
def test_a_task_trains_on_changed_images_and_is_evaluated_on_the_others():
    def loss(params, extra, batch, keys_B):
        return batch["image"], extra, keys_B

    task = augmented(Task(None, loss, lambda params, extra, batch: batch["image"]), (flip, crop(2)))
    keys_B = jax.random.split(jax.random.key(0), 64)
    image, _, keys = jax.jit(task.loss)({}, {}, {"image": images()}, keys_B)
    assert (keys == keys_B).all()
    np.testing.assert_array_equal(task.evaluate({}, {}, {"image": images()}), images())
    part, _, _ = jax.jit(task.loss)({}, {}, {"image": images()[8:12]}, keys_B[8:12])
    np.testing.assert_array_equal(part, image[8:12])
    assert not np.array_equal(image, images())
