"""Dimensions: M N boxes, K classes."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxmodels.tasks.boxes import area, from_centers, giou, iou, nms, to_centers

pytestmark = pytest.mark.fast


def boxes(n: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    corner, size = random.uniform(0, 80, (n, 2)), random.uniform(5, 40, (n, 2))
    return np.concatenate([corner, corner + size], -1).astype(np.float32)


def by_pixels(a, b) -> float:
    """Overlap of boxes with whole coordinates, by counting pixels."""
    canvas = np.zeros((2, 20, 20), bool)
    for i, (y0, x0, y1, x1) in enumerate((a, b)):
        canvas[i, y0:y1, x0:x1] = True
    return (canvas[0] & canvas[1]).sum() / (canvas[0] | canvas[1]).sum()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((0, 0, 4, 6), (2, 3, 9, 8)),
        ((0, 0, 4, 6), (5, 7, 9, 8)),
        ((3, 3, 5, 5), (1, 1, 9, 9)),
        ((1, 2, 3, 4),) * 2,
    ],
)
def test_the_overlap_is_that_of_the_pixels(a, b):
    assert float(iou(np.array(a, np.float32), np.array(b, np.float32))) == pytest.approx(
        by_pixels(a, b), abs=1e-6
    )


def test_generalised_overlap_falls_with_the_distance_of_boxes_that_do_not_touch():
    """Two unit squares with a gap of g: the hull is 2 + g, of which g is empty."""
    a = np.array([0, 0, 1, 1], np.float32)
    for gap in (0.0, 1.0, 6.0):
        b = np.array([0, 1 + gap, 1, 2 + gap], np.float32)
        assert float(giou(a, b)) == pytest.approx(-gap / (2 + gap), abs=1e-6)
    assert float(giou(a, a)) == pytest.approx(1)


def test_empty_boxes_have_no_overlap_and_no_area():
    zero = np.zeros(4, np.float32)
    assert float(iou(zero, zero)) == 0 and float(area(np.array([5, 5, 2, 9], np.float32))) == 0


def test_centre_form_and_back():
    got = jax.jit(lambda x: (to_centers(x), from_centers(to_centers(x))))(boxes(5))
    np.testing.assert_allclose(got[1], boxes(5), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(
        got[0][0], [*(boxes(5)[0, :2] + boxes(5)[0, 2:]) / 2, *(boxes(5)[0, 2:] - boxes(5)[0, :2])], rtol=1e-5
    )


def greedy(boxes_N4, score_NK, most, overlap, least):
    """The algorithm as it is told, one box after another."""
    rows = sorted(((s, n, k) for (n, k), s in np.ndenumerate(score_NK) if s > least), reverse=True)
    kept = []
    for s, n, k in rows:
        if all(k != other or float(iou(boxes_N4[n], boxes_N4[m])) <= overlap for _, m, other in kept):
            kept.append((s, n, k))
    return kept[:most]


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [0.3, 0.6])
def test_suppression_equals_the_loop(overlap):
    found, score = boxes(30), np.random.default_rng(1).uniform(0, 1, (30, 2)).astype(np.float32)
    got = jax.jit(lambda b, s: nms(b, s, most=50, overlap=overlap, least=0.4))(found, score)
    want = greedy(found, score, 50, overlap, 0.4)
    assert int(got.number) == len(want) < (score > 0.4).sum()
    np.testing.assert_allclose(got.scores[: len(want)], [s for s, _, _ in want])
    np.testing.assert_array_equal(got.boxes[: len(want)], found[[n for _, n, _ in want]])
    np.testing.assert_array_equal(got.classes[: len(want)], [k for _, _, k in want])
    assert not np.asarray(got.boxes[len(want) :]).any() and not np.asarray(got.scores[len(want) :]).any()


@pytest.mark.slow
def test_no_more_than_asked_for_are_given_and_fewer_boxes_than_that_are_filled_up():
    found, score = boxes(30), np.full((30, 1), 0.9, np.float32)
    assert jax.jit(lambda b, s: nms(b, s, most=3, overlap=1.0))(found, score).number == 3
    got = jax.jit(lambda b, s: nms(b, s, most=40, overlap=1.0))(found, score)
    assert got.number == 30 and got.boxes.shape == (40, 4)
