"""Dimensions: N pairs, B examples, D width of an embedding."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.scores.verification import accuracy, best_threshold, equal_error_rate, one_shot_error, pairs

pytest.importorskip("sklearn", reason="needs scikit-learn")

pytestmark = pytest.mark.fast

RANDOM = np.random.default_rng(0)
SAME = RANDOM.random(400) < 0.4
SCORE = np.round(RANDOM.normal(size=400) + 1.2 * SAME, 1)  # with ties


def test_at_the_equal_error_rate_both_errors_are_equal():
    """Normal distributions of deviation 1 at a distance d meet at d / 2: the error is a normal tail."""
    n, d = 200_000, 1.5
    random = np.random.default_rng(1)
    score = np.concatenate([random.normal(size=n), random.normal(d, size=n)])
    assert equal_error_rate(score, np.arange(2 * n) >= n) == pytest.approx(0.2266, abs=0.003)


@pytest.mark.parametrize(
    ("score", "want"), [([0.1, 0.2, 0.8, 0.9], 0.0), ([0.9, 0.8, 0.2, 0.1], 1.0), ([0.5] * 4, 0.5)]
)
def test_the_equal_error_rate_of_simple_cases(score, want):
    assert equal_error_rate(score, [False, False, True, True]) == pytest.approx(want)


def test_the_threshold_is_the_best_there_is_and_is_used_elsewhere():
    best = best_threshold(SCORE, SAME)
    tried = [accuracy(SCORE, SAME, t) for t in np.linspace(-5, 6, 2_000)]
    assert accuracy(SCORE, SAME, best) == pytest.approx(max(tried))
    assert accuracy([0.3, 0.9], [True, True], 0.5) == 0.5


def test_where_all_are_better_refused_the_threshold_is_above_every_score():
    assert best_threshold([0.9, 0.8, 0.7, 0.1], [False, False, False, True]) > 0.9


def test_pairs_are_half_of_either_kind_and_always_the_same():
    x = RANDOM.normal(size=(60, 4))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    label = np.repeat(np.arange(15), 4)
    scores, same = pairs(x, label, 500)
    assert same.sum() == 250
    np.testing.assert_array_equal(pairs(x, label, 500)[0], scores)
    assert scores[same].max() < 1 - 1e-9  # none with itself


def test_the_nearest_training_example_answers():
    train = np.eye(3)
    test = np.array([[0.9, 0.1, 0.0], [0.2, 0.1, 0.7], [0.6, 0.3, 0.1]])
    assert one_shot_error(train, test, np.array([0, 2, 1])) == pytest.approx(1 / 3)


def test_pairs_of_one_kind_alone_are_refused():
    with pytest.raises(ValueError, match="got 2 positives of 2 examples; expected some of both kinds"):
        equal_error_rate([1, 2], [True, True])
    with pytest.raises(
        ValueError, match="got 3 labels, 0 of them with several examples; expected two labels"
    ):
        pairs(np.eye(3), np.arange(3), 2)


@pytest.mark.parametrize("measure", [equal_error_rate, best_threshold, lambda s, t: accuracy(s, t, 0.0)])
def test_a_score_that_is_nan_is_refused(measure):
    with pytest.raises(ValueError, match="got nan as 1 of 3 scores, the first in row 1; expected numbers"):
        measure(np.array([0.1, np.nan, 0.3]), np.array([True, False, True]))
