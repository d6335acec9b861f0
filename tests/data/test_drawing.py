"""Dimensions: N images, H W image, C channels."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.data.drawing import COLORS, boxed, captioned, grid, heatmap

pytestmark = pytest.mark.fast

pytest.importorskip("PIL", reason="needs pillow")


def test_a_grid_has_its_images_row_by_row():
    images = np.linspace(0, 1, 5 * 4).reshape(5, 2, 2, 1).astype(np.float32)
    whole = grid(images, 3, zoom=2, gap=1)
    assert whole.shape == (2 * 5 + 1, 3 * 5 + 1, 3)
    for i in range(5):
        y, x = 1 + i // 3 * 5, 1 + i % 3 * 5
        want = np.round(255 * images[i, ..., 0]).repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(whole[y : y + 4, x : x + 4], np.stack([want] * 3, -1))
    assert (whole[6:, 11:] == 255).all()  # where no image is


def test_a_caption_is_below_the_whole_image():
    image = np.full((400, 500, 3), 77, np.uint8)
    whole = captioned(image, "coat 97.0%")
    assert whole.shape[1] == 500 and whole.shape[0] > 400
    np.testing.assert_array_equal(whole[:400], image)
    assert whole[400:].min() < 100 and (whole[400:].mean() > 200)  # dark letters on white


def test_small_images_are_enlarged_before_anything_is_drawn_on_them():
    assert captioned(np.zeros((28, 28, 1), np.uint8), "x").shape[1] >= 320


def test_boxes_are_drawn_at_their_edges_in_the_colour_of_their_kind():
    image = np.zeros((400, 600, 3), np.uint8)
    whole = boxed(image, np.array([[50.0, 100.0, 150.0, 300.0]]), [""], [1], scale=(2.0, 1.0))
    for y, x in ((100, 200), (300, 200), (200, 100), (200, 300)):
        np.testing.assert_array_equal(whole[y, x], COLORS[1])
    assert not whole[200, 200].any() and not whole[350, 200].any()


def test_a_label_is_written_beside_its_box():
    image = np.zeros((400, 600, 3), np.uint8)
    boxes = np.array([[150.0, 100.0, 350.0, 300.0]])
    assert boxed(image, boxes, ["cell 0.9"])[120:149, 100:160].any()
    assert not boxed(image, boxes, [""])[120:149, 100:160].any()


def test_a_heat_map_is_dark_where_much_is():
    image = heatmap(np.array([[9, 0], [4, 5]]), ["cat", "dog"])
    assert image.dtype == np.uint8 and image.shape[2] == 3
    cells = image[-2 * 36 :, -2 * 36 :].astype(int)
    assert cells[3, 3].sum() < cells[39, 39].sum() < cells[3, 39].sum()  # all, most and none of their rows


def test_names_in_other_scripts_do_not_break_drawing():
    assert captioned(np.zeros((8, 8, 3), np.uint8), "ねこ 97%").size
