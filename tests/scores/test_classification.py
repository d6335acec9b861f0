"""A classifier's scores by hand. Dimensions: B examples, K classes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from jaxmodels.scores.classification import auc, calibration_error, confusion, roc_curve, scores

pytestmark = pytest.mark.fast

pytest.importorskip("sklearn", reason="needs scikit-learn")


RANDOM = np.random.default_rng(0)
POSITIVE = RANDOM.random(400) < 0.4
SCORE = np.round(RANDOM.normal(size=400) + 1.2 * POSITIVE, 1)  # with ties


def test_the_curve_has_the_rates_at_each_score_that_occurs_and_the_area_is_that_of_ordered_pairs():
    curve = roc_curve(SCORE, POSITIVE)
    assert list(curve.threshold) == [np.inf, *np.unique(SCORE)[::-1]]
    for threshold, false, true in zip(*curve, strict=True):
        assert true == pytest.approx((SCORE[POSITIVE] >= threshold).mean())
        assert false == pytest.approx((SCORE[~POSITIVE] >= threshold).mean())
    gap = SCORE[POSITIVE][:, None] - SCORE[~POSITIVE]
    assert auc(SCORE, POSITIVE) == pytest.approx((gap > 0).mean() + (gap == 0).mean() / 2)


@pytest.mark.parametrize("measure", [roc_curve, auc])
def test_examples_of_one_kind_and_scores_of_nan_are_refused(measure):
    with pytest.raises(ValueError, match=r"got 2 positives of 2 examples; expected some of both kinds. Give"):
        measure([1, 2], [True, True])
    with pytest.raises(ValueError, match="got nan as 1 of 3 scores, the first in row 1; expected numbers"):
        measure(np.array([0.1, np.nan, 0.3]), np.array([True, False, True]))


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    message = r"got no scikit-learn; expected it for .*\. Do pip install 'jaxmodels\[data\]'"
    for measure in (roc_curve, auc):
        with pytest.raises(ImportError, match=message):
            measure(SCORE, POSITIVE)
    with pytest.raises(ImportError, match=message):
        scores([np.eye(2)], [{"label": np.array([0, 1])}])


def test_right_and_sure_is_perfect():
    label_B = np.array([0, 1, 2, 1])
    got = scores(
        [np.eye(3)[label_B[:3]], np.eye(3)[label_B[3:]]], [{"label": label_B[:3]}, {"label": label_B[3:]}]
    )
    assert got == {"macro_f1": 1.0, "auc": 1.0, "calibration_error": 0.0}


def test_scores_of_two_classes_by_hand():
    """Probabilities of class 1: of the pairs (one of class 1, one of class 0) 5 of 6 are in order."""
    p_B = np.array([0.1, 0.4, 0.35, 0.8, 0.9])
    label_B = np.array([0, 0, 1, 1, 1])
    got = scores([np.stack([1 - p_B, p_B], -1)], [{"label": label_B}])
    assert got["auc"] == pytest.approx(5 / 6)
    # Taken for 1: two, both right, of three. F1 of class 1: 2 x 1 x 2/3 / (1 + 2/3); of class 0: precision
    # 2/3, recall 1.
    assert got["macro_f1"] == pytest.approx((0.8 + 0.8) / 2)


def test_a_class_that_nobody_has_does_not_count():
    p_BK = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]])
    got = scores([p_BK], [{"label": np.array([0, 1])}])
    assert (got["macro_f1"], got["auc"]) == (1.0, 1.0)


def test_with_one_class_alone_there_is_no_auc():
    assert np.isnan(scores([np.eye(3)[:2]], [{"label": np.array([1, 1])}])["auc"])


def test_the_calibration_error_is_the_mean_gap_of_accuracy_and_confidence():
    """Three examples at 0.9, of which two are right, and one at 0.6, which is right."""
    sure = np.array([0.9, 0.9, 0.9, 0.6])
    p_BK = np.stack([sure, 1 - sure], -1)
    want = 3 / 4 * (0.9 - 2 / 3) + 1 / 4 * (1 - 0.6)
    assert calibration_error(p_BK, np.array([0, 0, 1, 0])) == pytest.approx(want)


def test_the_confusion_matrix_counts_labels_by_rows():
    p_BK = np.eye(3)[[0, 1, 1, 0]]
    want = [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    np.testing.assert_array_equal(confusion([p_BK], [{"label": np.array([0, 0, 1, 2])}]), want)


def test_an_example_of_weight_0_counts_nowhere():
    random = np.random.default_rng(0)
    probability_BK, label_B = random.dirichlet(np.ones(3), 40), random.integers(0, 3, 40)
    weight_B = np.ones(41, np.float32)
    weight_B[40] = 0
    more = (
        [np.concatenate([probability_BK, np.full((1, 3), np.nan)])],
        [{"label": np.append(label_B, -1), "weight": weight_B}],
    )
    assert scores(*more) == scores([probability_BK], [{"label": label_B}])
    assert np.array_equal(confusion(*more), confusion([probability_BK], [{"label": label_B}]))


def test_a_probability_that_is_nan_is_refused():
    with pytest.raises(
        ValueError, match="got nan for the probabilities of 1 of 2 examples, the first in row 1; expected"
    ):
        scores([np.array([[0.5, 0.5], [np.nan, 0.5]])], [{"label": np.array([0, 1])}])
