"""Scores of forecasts, on the host, of all values with a weight (Hyndman and Athanasopoulos, FPP3, 5.8).

Arrays of any one shape; the weight, by default 1 everywhere, is 0 where there is nothing to compare.
Dimensions: B windows, H steps of the horizon, C series, N times, S samples, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mse(forecast: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Mean squared error."""
    forecast, target, weight = _checked("mse", forecast, target, weight)
    return _mean((forecast - target) ** 2, weight)


def mae(forecast: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Mean absolute error."""
    forecast, target, weight = _checked("mae", forecast, target, weight)
    return _mean(abs(forecast - target), weight)


def smape(forecast: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Symmetric mean absolute percentage error, 0 to 200: 200 |y - f| / (|y| + |f|), 0 where both are 0
    (Makridakis, 1993)."""
    forecast, target, weight = _checked("smape", forecast, target, weight)
    sum_ = abs(forecast) + abs(target)
    return _mean(200 * abs(forecast - target) / np.where(sum_ > 0, sum_, 1), weight)


def seasonal_scale(train_NC: np.ndarray, season: int = 1) -> np.ndarray:
    """The mean absolute difference of each series from `season` steps before, C: the scale of MASE.

    train_NC: the training span; nan is missing.
    """
    train_NC = np.asarray(train_NC, np.float64)
    if not 1 <= season < len(train_NC):
        raise ValueError(
            f"seasonal_scale: got a season of {season:,} for {len(train_NC):,} steps; expected 1 to "
            f"{len(train_NC) - 1:,}. Give a longer training span"
        )
    apart_NC = abs(train_NC[season:] - train_NC[:-season])
    scale_C = np.where(np.isnan(apart_NC), 0, apart_NC).sum(0) / (~np.isnan(apart_NC)).sum(0).clip(1)
    if not (scale_C > 0).all():
        raise ValueError(
            f"seasonal_scale: got a series, column {int((scale_C <= 0).argmax())}, that repeats itself "
            f"every {season:,} steps; expected one that changes, as errors are divided by its changes. "
            "Leave it out"
        )
    return scale_C


def mase(
    forecast_BHC: np.ndarray,
    target_BHC: np.ndarray,
    scale_C: np.ndarray,
    weight_BHC: np.ndarray | None = None,
) -> float:
    """Mean absolute scaled error (Hyndman and Koehler, 2006).

    scale_C: see seasonal_scale; in the units of the target.
    """
    forecast, target, weight = _checked("mase", forecast_BHC, target_BHC, weight_BHC)
    return _mean(abs(forecast - target) / np.asarray(scale_C, np.float64), weight)


def crps_samples(samples: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Continuous ranked probability score of the distribution of S samples, on the first axis:
    E|X - y| - E|X - X'| / 2 (Gneiting and Raftery, 2007, equation 21)."""
    sorted_S = np.sort(np.asarray(samples, np.float64), 0)
    S = len(sorted_S)
    error, target, weight = _checked("crps_samples", sorted_S.mean(0), target, weight)
    # The mean of |x - x'| over all S² pairs: each ordered value is above as many as its place says.
    place_S = (2 * np.arange(1, S + 1) - S - 1).reshape(-1, *(1,) * target.ndim)
    spread = 2 * (place_S * sorted_S).sum(0) / S**2
    error = abs(sorted_S - target).mean(0)
    return _mean(error - spread / 2, weight)


def pinball(
    quantiles: np.ndarray, target: np.ndarray, levels: Sequence[float], weight: np.ndarray | None = None
) -> np.ndarray:
    """The mean quantile loss at each level: (y - q) level above the quantile, (q - y) (1 - level) below.

    quantiles: Q on the first axis, of these levels between 0 and 1.
    """
    quantiles = np.asarray(quantiles, np.float64)
    if len(quantiles) != len(levels) or not all(0 < level < 1 for level in levels):
        raise ValueError(
            f"pinball: got {len(quantiles)} quantiles at the levels {list(levels)}; expected one at each "
            "level, between 0 and 1. Give them on the first axis"
        )
    losses = []
    for quantile, level in zip(quantiles, levels, strict=True):
        quantile, y, w = _checked("pinball", quantile, target, weight)
        losses.append(_mean(np.maximum(level * (y - quantile), (level - 1) * (y - quantile)), w))
    return np.array(losses)


def crps_quantiles(
    quantiles: np.ndarray, target: np.ndarray, levels: Sequence[float], weight: np.ndarray | None = None
) -> float:
    """Twice the mean of the quantile losses, which is the CRPS as evenly spaced levels become many
    (Gneiting and Ranjan, 2011, equation 17)."""
    return 2 * float(pinball(quantiles, target, levels, weight).mean())


def coverage(
    low: np.ndarray, high: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None
) -> float:
    """The share of values in their intervals, both ends included: 0.9 or so for intervals of 90 %."""
    low, _, _ = _checked("coverage", low, target, weight)
    high, target, weight = _checked("coverage", high, target, weight)
    return _mean(((low <= target) & (target <= high)).astype(np.float64), weight)


def _checked(
    name: str, forecast: np.ndarray, target: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All in float64, with 0 where nothing counts."""
    forecast, target = np.asarray(forecast, np.float64), np.asarray(target, np.float64)
    weight = np.ones(target.shape) if weight is None else np.asarray(weight, np.float64)
    if forecast.shape != target.shape or weight.shape != target.shape:
        raise ValueError(
            f"{name}: got forecasts of the shape {forecast.shape}, targets of {target.shape} and weights of "
            f"{weight.shape}; expected one shape. Give one value for each"
        )
    counts = weight > 0
    bad = counts & ~(np.isfinite(forecast) & np.isfinite(target))
    if bad.any() or not counts.any():
        raise ValueError(
            f"{name}: got {int(bad.sum()):,} values that are not finite among {int(counts.sum()):,} that "
            "count; expected finite ones, at least one. Give what is missing the weight 0"
        )
    return np.where(counts, forecast, 0), np.where(counts, target, 0), weight


def _mean(value: np.ndarray, weight: np.ndarray) -> float:
    return float((value * weight).sum() / weight.sum())
