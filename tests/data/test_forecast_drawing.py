"""A forecast drawn: the curves are where their values are, and missing ones are left out."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("PIL", reason="needs pillow")

from jaxmodels.data.forecast_drawing import BAND, BOTTOM, FORECAST, HEIGHT, TOP, forecast_chart

pytestmark = pytest.mark.fast


def rows_of(image, color):
    return np.flatnonzero((image == color).all(-1).any(1))


def test_a_forecast_is_where_its_values_are_and_the_interval_around_it():
    history, forecast = np.array([0.0, np.nan, 2, 1]), np.full(3, 5.0)
    image = forecast_chart(history, forecast, interval=(np.full(3, 4.0), np.full(3, 10.0)), title="a")
    middle = TOP + (10.5 - 5) / 11 * (HEIGHT - TOP - BOTTOM)  # 0 to 10, and a twentieth more on each side
    assert abs(rows_of(image, FORECAST).mean() - middle) < 2
    assert abs(np.ptp(rows_of(image, BAND)) - 6 / 11 * (HEIGHT - TOP - BOTTOM)) < 3
    without = forecast_chart(history, forecast)
    assert not len(rows_of(without, BAND)) and image.dtype == np.uint8


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="got 1 steps of history and 0 of a forecast"):
        forecast_chart(np.ones(1), np.ones(0))
