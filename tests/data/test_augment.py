import numpy as np
import pytest

from jaxmodels.data.augment import crop, flip
from jaxmodels.data.order import mix
from jaxmodels.data.random import bits, integers, uniform

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
    assert np.array_equal(bits(KEYS, 3)[5:7], bits(KEYS[5:7], 3)) and np.array_equal(bits(KEYS, 3)[:, :2], bits(KEYS, 2))


def test_an_empty_range_of_integers_is_refused():
    with pytest.raises(ValueError, match="from 3 to below 3"):
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
