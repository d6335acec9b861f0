"""Forecasts that learn nothing, to compare with (Hyndman and Athanasopoulos, FPP3, section 5.2).

Dimensions: B windows, L steps of history, H of the horizon, C series.
"""

from __future__ import annotations

import numpy as np


def naive(history_BLC: np.ndarray, horizon: int) -> np.ndarray:
    """The last value, at every step, BHC."""
    return seasonal_naive(history_BLC, horizon, season=1)


def seasonal_naive(history_BLC: np.ndarray, horizon: int, *, season: int) -> np.ndarray:
    """The last season, such as 24 hours, over and over, BHC."""
    _check("seasonal_naive", history_BLC, horizon, season)
    return np.asarray(history_BLC)[:, -season:][:, np.arange(horizon) % season]


def drift(history_BLC: np.ndarray, horizon: int) -> np.ndarray:
    """The line through the first and the last value of the history, BHC."""
    _check("drift", history_BLC, horizon, 2)
    history_BLC = np.asarray(history_BLC)
    slope_B1C = (history_BLC[:, -1:] - history_BLC[:, :1]) / (history_BLC.shape[1] - 1)
    return history_BLC[:, -1:] + slope_B1C * np.arange(1, horizon + 1)[:, None]


def _check(name: str, history_BLC: np.ndarray, horizon: int, least: int) -> None:
    if np.ndim(history_BLC) != 3 or not 1 <= least <= np.shape(history_BLC)[1] or horizon < 1:
        raise ValueError(
            f"{name}: got a history of the shape {np.shape(history_BLC)} and a horizon of {horizon}; "
            f"expected (windows, steps, series) with {max(least, 1)} steps or more, and a horizon of 1 or "
            "more. Give a longer history"
        )
