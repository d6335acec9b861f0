"""Exponential smoothing by statsforecast on the airline's passengers, which DeepAR is compared with."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.data.datasets.airline import SEASON, SPANS, months
from jaxmodels.scores import forecasting
from jaxmodels.scores.simple_forecasts import seasonal_naive


def test_exponential_smoothing_is_better_than_the_last_season(real):
    models = pytest.importorskip("statsforecast.models", reason="needs statsforecast")
    value_NC = months(folder=real("ucr"))[0].astype(float)
    smoothed, naive, target = [], [], []
    for origin in (120, 126, 132):
        found = models.AutoETS(season_length=SEASON).forecast(y=value_NC[:origin, 0], h=12)
        smoothed.append(found["mean"][:, None])
        naive.append(seasonal_naive(value_NC[None, :origin], 12, season=SEASON)[0])
        target.append(value_NC[origin : origin + 12])
    scale_C = forecasting.seasonal_scale(value_NC[: SPANS["train"][1]], SEASON)
    own, last = (forecasting.mase(np.stack(x), np.stack(target), scale_C) for x in (smoothed, naive))
    assert 0.5 < own < 0.9 * last
