"""The airline's passengers: months, one-hot, beside windows of the published years."""

from __future__ import annotations

import numpy as np

from jaxmodels.data.datasets.airline import airline, months
from jaxmodels.scores.simple_forecasts import seasonal_naive


def test_windows_of_a_part_forecast_its_months_alone(real):
    folder = real("ucr")
    value_NC, month_NK = months(folder=folder)
    assert len(value_NC) == 144 and value_NC[[0, -1], 0].tolist() == [112, 432]
    assert month_NK[0].argmax() == 0 and (month_NK.argmax(1) == np.arange(144) % 12).all()
    test = airline("test", 13, folder=folder).rows(0, 0, 13)
    assert test["target"].shape == (13, 12, 1) and test["weight"].all()
    np.testing.assert_array_equal(test["target"][0, :, 0], value_NC[120:132, 0])
    np.testing.assert_array_equal(test["target"][-1, :, 0], value_NC[132:, 0])
    np.testing.assert_array_equal(test["history"][0, :, 0], value_NC[96:120, 0])
    assert airline("train", 61, folder=folder).rows(0, 0, 61)["target"][-1, -1] == value_NC[95]
    naive = seasonal_naive(test["history"], 12, season=12)
    assert abs(np.mean(abs(naive - test["target"])) - 51.4615) < 1e-3  # as CRPS of a point
