"""Dimensions: B batch, H W image, M boxes."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.data.augment_boxes import flip_boxes, jitter, zoom_boxes
from jaxmodels.data.order import mix

pytestmark = pytest.mark.fast

B, H, W = 16, 40, 60
KEYS = mix(np.arange(B, dtype=np.uint64))


def scene() -> dict[str, np.ndarray]:
    """A white rectangle on black in each image, and its box."""
    random = np.random.default_rng(0)
    image, boxes = np.zeros((B, H, W, 3), np.float32), np.zeros((B, 2, 4), np.float32)
    for i in range(B):
        h, w = random.integers(8, 20, 2)
        y, x = random.integers(0, H - h), random.integers(0, W - w)
        image[i, y : y + h, x : x + w] = 1
        boxes[i, 0] = y, x, y + h, x + w
    present = np.tile(np.array([1, 0], np.float32), (B, 1))
    return {"image": image, "boxes": boxes, "classes": np.zeros((B, 2), np.int32), "present": present}


def seen(image_HWC) -> np.ndarray:
    """The box of what is bright."""
    bright = image_HWC[..., 0] > 0.5
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])


@pytest.mark.parametrize(
    ("change", "off"), [(flip_boxes, 0), (zoom_boxes(0.7, 1.6), 1.6)], ids=["flip", "zoom"]
)
def test_boxes_move_with_what_they_are_around(change, off):
    after, moved = change(scene(), KEYS), 0
    for i in range(B):
        if after["present"][i, 0]:
            np.testing.assert_allclose(after["boxes"][i, 0], seen(after["image"][i]), atol=off)
            moved += not np.allclose(after["boxes"][i, 0], scene()["boxes"][i, 0])
        assert not after["boxes"][i, 1].any() and not after["present"][i, 1]
    assert moved > B / 2


def test_boxes_that_are_mostly_outside_are_dropped_and_the_others_stay_inside():
    after = zoom_boxes(3.0, 3.0)(scene(), KEYS)
    assert 0 < after["present"].sum() < B
    assert after["boxes"].min() >= 0 and (after["boxes"] <= [H, W, H, W]).all()
    assert not after["boxes"][after["present"] == 0].any()


@pytest.mark.parametrize("change", [flip_boxes, zoom_boxes(0.7, 1.6), jitter()])
def test_each_example_changes_by_its_own_key(change):
    whole, rows = change(scene(), KEYS), slice(3, 7)
    part = change({name: x[rows] for name, x in scene().items()}, KEYS[rows])
    for name, x in part.items():
        np.testing.assert_array_equal(x, whole[name][rows])


def test_jitter_stays_in_range_and_leaves_the_boxes():
    before, after = scene(), jitter(0.5, 0.5, 0.2)(scene(), KEYS)
    assert (
        after["image"].min() >= 0
        and after["image"].max() <= 1
        and not np.allclose(after["image"], before["image"])
    )
    np.testing.assert_array_equal(after["boxes"], before["boxes"])


def test_factors_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match=r"zoom_boxes: got factors from 2 to 1; expected 0 < low <= high"):
        zoom_boxes(2, 1)
