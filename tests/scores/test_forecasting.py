"""Scores of forecasts against counts by hand, and forecasts that learn nothing."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.scores import forecasting
from jaxmodels.scores.simple_forecasts import drift, naive, seasonal_naive

pytestmark = pytest.mark.fast

FORECAST, TARGET = np.array([[[1.0], [2]], [[3], [5]]]), np.array([[[2.0], [2]], [[1], [np.nan]]])
WEIGHT = np.array([[[1.0], [1]], [[2], [0]]])


def test_means_are_over_the_values_that_have_a_weight():
    assert forecasting.mse(FORECAST, TARGET, WEIGHT) == (1 + 0 + 2 * 4) / 4
    assert forecasting.mae(FORECAST, TARGET, WEIGHT) == (1 + 0 + 2 * 2) / 4
    assert forecasting.smape(FORECAST, TARGET, WEIGHT) == pytest.approx((200 / 3 + 0 + 2 * 100) / 4)
    assert forecasting.smape(np.zeros(2), np.array([0.0, 3])) == 100


def test_mase_divides_by_the_mean_change_over_a_season_of_the_training_span():
    train = np.array([[0.0], [10], [2], [13], [np.nan], [14]])
    assert forecasting.seasonal_scale(train, 2) == (2 + 3 + 1) / 3
    assert forecasting.mase(FORECAST, TARGET, np.array([2.0]), WEIGHT) == 5 / 4 / 2
    with pytest.raises(ValueError, match="column 0, that repeats itself every 2 steps"):
        forecasting.seasonal_scale(np.array([[1.0], [2], [1], [2]]), 2)
    with pytest.raises(ValueError, match="season of 4 for 4 steps"):
        forecasting.seasonal_scale(train[:4], 4)


def test_crps_of_samples_is_the_integral_over_the_squared_difference_of_distributions():
    samples, y = np.array([0.0, 1, 4]), 2.0
    # The distribution rises by thirds at 0, 1 and 4: (1/9) 1 + (4/9) 1 up to y, then (1 - 2/3)² 2.
    assert forecasting.crps_samples(samples[:, None], np.array([y])) == pytest.approx(1 / 9 + 4 / 9 + 2 / 9)
    assert forecasting.crps_samples(np.array([[3.0]]), np.array([y])) == 1  # one sample: the absolute error


def test_crps_of_many_quantiles_is_that_of_their_distribution():
    levels = (np.arange(400) + 0.5) / 400
    y = np.array([0.3])  # uniform between 0 and 1: y³/3 + (1 - y)³/3
    assert forecasting.crps_quantiles(levels[:, None], y, levels) == pytest.approx(
        (0.027 + 0.343) / 3, rel=1e-4
    )
    assert forecasting.pinball(np.array([[1.0], [1]]), np.array([3.0]), [0.5, 0.9]) == pytest.approx([1, 1.8])
    assert forecasting.pinball(np.array([[3.0]]), np.array([1.0]), [0.9]) == pytest.approx([0.2])


def test_coverage_counts_values_in_their_intervals_with_both_ends():
    low, high, y = np.array([0.0, 0, 0, 0]), np.array([1.0, 1, 1, 1]), np.array([0.0, 1, 2, -1])
    assert forecasting.coverage(low, high, y) == 0.5
    assert forecasting.coverage(low, high, y, np.array([1, 1, 1, 0])) == pytest.approx(2 / 3)


def test_values_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"mse: got 1 values that are not finite among 4"):
        forecasting.mse(FORECAST, TARGET)
    with pytest.raises(ValueError, match=r"mae: got forecasts of the shape \(2, 2, 1\), targets of \(2,\)"):
        forecasting.mae(FORECAST, np.zeros(2))
    with pytest.raises(ValueError, match=r"2 quantiles at the levels \[0.5\]"):
        forecasting.pinball(np.zeros((2, 1)), np.zeros(1), [0.5])


def test_forecasts_that_learn_nothing_repeat_or_go_on():
    history = np.array([1.0, 7, 3, 9])[None, :, None]
    assert naive(history, 3)[0, :, 0].tolist() == [9, 9, 9]
    assert seasonal_naive(history, 5, season=2)[0, :, 0].tolist() == [3, 9, 3, 9, 3]
    assert drift(history, 2)[0, :, 0] == pytest.approx([9 + 8 / 3, 9 + 16 / 3])
    with pytest.raises(ValueError, match="with 5 steps or more"):
        seasonal_naive(history, 2, season=5)
