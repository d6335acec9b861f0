"""A series drawn with its forecast and an interval, as an image: uint8, HWC, RGB. Needs pillow.

Dimensions: N steps of history, H of the horizon.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxmodels.data.drawing import COLORS
from jaxmodels.data.libraries import pillow

WIDTH, HEIGHT = 900, 360  # pixels
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 34, 40  # margins
SEEN, TRUTH, FORECAST, BAND = (60, 60, 60), (150, 150, 150), COLORS[1], (205, 224, 246)


def forecast_chart(
    history_N: np.ndarray,
    forecast_H: np.ndarray,
    *,
    interval: tuple[np.ndarray, np.ndarray] | None = None,
    truth_H: np.ndarray | None = None,
    title: str = "",
    ends: tuple[str, str] = ("", ""),
) -> np.ndarray:
    """History, forecast, the interval's limits (each H) and what came, where it is known; nan is missing.

    ends: what is written below the first step and below the last.
    """
    history_N, forecast_H = (np.asarray(x, np.float64).reshape(-1) for x in (history_N, forecast_H))
    N, H = len(history_N), len(forecast_H)
    curves = [history_N, forecast_H, *(interval or ()), *(() if truth_H is None else (truth_H,))]
    values = np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in curves])
    values = values[np.isfinite(values)]
    if not N or not H or not len(values):
        raise ValueError(
            f"forecast_chart: got {N} steps of history and {H} of a forecast; expected one finite value or "
            "more. Give some"
        )
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or abs(high) or 1.0
    low, high = low - margin, high + margin

    def point(step: float, value: float) -> tuple[float, float]:
        x = LEFT + step / max(1, N + H - 1) * (WIDTH - LEFT - RIGHT)
        return x, TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    pil = pillow("drawing forecasts")
    image = pil.Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = pil.ImageDraw.Draw(image), pil.ImageFont.load_default(13)
    for value in np.linspace(low + margin, high - margin, 4):
        y = point(0, value)[1]
        draw.line((LEFT, y, WIDTH - RIGHT, y), (235, 235, 235))
        draw.text((LEFT - 6, y), f"{value:,.4g}", "black", font, anchor="rm")
    if interval is not None:
        lower, upper = (np.asarray(x, np.float64).reshape(-1) for x in interval)
        above = [point(N + h, y) for h, y in enumerate(upper)]
        draw.polygon([*above, *(point(N + h, lower[h]) for h in range(H - 1, -1, -1))], BAND)
    _line(draw, point, history_N, 0, SEEN)
    if truth_H is not None:
        _line(draw, point, np.r_[history_N[-1:], np.asarray(truth_H, np.float64).reshape(-1)], N - 1, TRUTH)
    _line(draw, point, forecast_H, N, FORECAST)
    draw.text((LEFT, 8), title, "black", font)
    draw.text((LEFT, HEIGHT - BOTTOM + 14), ends[0], "black", font)
    draw.text((WIDTH - RIGHT, HEIGHT - BOTTOM + 14), ends[1], "black", font, anchor="ra")
    return np.asarray(image)


def _line(draw: Any, point: Any, values: np.ndarray, first: int, color: tuple[int, int, int]) -> None:
    """The values, without those that are missing."""
    for n in range(len(values)):
        if np.isfinite(values[n]):
            x, y = point(first + n, values[n])
            draw.ellipse((x - 1, y - 1, x + 1, y + 1), color)
            if n and np.isfinite(values[n - 1]):
                draw.line((*point(first + n - 1, values[n - 1]), x, y), color, 2)
