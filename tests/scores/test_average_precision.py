"""Average precision by hand: precision and recall of a few boxes."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.scores.average_precision import average_precision

pytestmark = pytest.mark.fast

pytest.importorskip("pycocotools", reason="needs pycocotools")

A, B, C = [0, 0, 10, 20], [30, 30, 50, 40], [60, 5, 80, 25]


def found(*entries):
    """(box, class, score) each."""
    boxes, classes, scores = zip(*entries, strict=True) if entries else ((), (), ())
    return {
        "boxes": np.array(boxes, float).reshape(-1, 4),
        "classes": np.array(classes),
        "scores": np.array(scores),
    }


def true(*entries):
    """(box, class) each."""
    boxes, classes = zip(*entries, strict=True) if entries else ((), ())
    return {"boxes": np.array(boxes, float).reshape(-1, 4), "classes": np.array(classes)}


def test_finding_exactly_what_is_there_is_perfect():
    got = average_precision([(found((A, 0, 0.9), (B, 1, 0.8)), true((A, 0), (B, 1)))], ["x", "y"])
    assert got == {
        "map50": pytest.approx(1),
        "map": pytest.approx(1),
        "ap50 x": pytest.approx(1),
        "ap50 y": pytest.approx(1),
    }


def test_finding_nothing_is_nothing():
    assert average_precision([(found(), true((A, 0)))], ["x"])["map50"] == 0


def test_one_of_two_found_first_is_a_recall_of_one_half():
    """Of the 101 recall levels those up to 0.5, 51 of them, have precision 1."""
    got = average_precision([(found((A, 0, 0.9), (C, 0, 0.3)), true((A, 0), (B, 0)))], ["x"])
    assert got["map50"] == pytest.approx(51 / 101)


def test_a_wrong_box_that_scores_higher_halves_the_precision():
    assert average_precision([(found((C, 0, 0.9), (A, 0, 0.3)), true((A, 0)))], ["x"])[
        "map50"
    ] == pytest.approx(0.5)


def test_a_box_found_half_counts_at_low_overlaps_alone():
    """Of 20 columns 18.5 are an overlap of 0.925, which fulfils 0.5, 0.55, ..., 0.9: nine of the ten."""
    nearly = [0, 0, 10, 18.5]
    got = average_precision([(found((nearly, 0, 0.9)), true((A, 0)))], ["x"])
    assert got["map50"] == pytest.approx(1) and got["map"] == pytest.approx(0.9)


def test_the_other_class_and_another_image_do_not_count():
    images = [(found((A, 1, 0.9)), true((A, 0))), (found((A, 0, 0.8)), true((B, 0)))]
    assert average_precision(images, ["x", "y"])["map50"] == 0


def test_a_class_that_is_nowhere_counts_nowhere():
    got = average_precision([(found((A, 0, 0.9), (B, 1, 0.2)), true((A, 0)))], ["x", "y"])
    assert got["map50"] == pytest.approx(1) and "ap50 y" not in got
