"""Airline passengers: 144 months of an airline's passengers, in thousands (Box and Jenkins, 1976).

The last two years are to test and the two before them to validate. A window is of the part that its horizon
lies in, so the first histories of a part reach into the one before.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data import locate
from jaxmodels.data.series import Series, read_series
from jaxmodels.data.series_windows import SeriesWindows

SEASON = 12  # months
SPANS = {"train": (0, 96), "validation": (96, 120), "test": (120, 144)}
FILES: locate.Files = {
    "Airline.csv": (1744, "28af0eb869db6d9fbd31d5af03993a0cbf36c0857c3eb046a068c094b60da851")
}
WHERE = "https://www.timeseriesclassification.com or the package aeon (Airline.csv)"


def airline(
    split: Literal["train", "validation", "test"],
    batch: int,
    seed: int | None = None,
    *,
    history: int = 24,
    horizon: int = 12,
    folder: locate.PathLike | None = None,
) -> SeriesWindows:
    """Batches of windows of passengers in thousands, with the month, one-hot, as known columns.

    folder: the folder with Airline/Airline.csv; else $JAXMODELS_DATA/ucr, else ~/.cache/jaxmodels/data/ucr.
    """
    choices.check("airline", "split", split, SPANS)

    def tables():
        value_N1, month_NK = months(folder=folder)
        start, stop = SPANS[split]
        span = slice(max(0, start - history), stop)
        return [{"value": value_N1[span], "known": month_NK[span]}]

    sizes: Any = {"history": history, "horizon": horizon, "known": SEASON}
    return SeriesWindows(tables, **sizes, batch=batch, seed=seed)


def months(*, folder: locate.PathLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(passengers in thousands, N x 1; month of the year, one-hot N x 12) of all months, float32."""
    series = _read(locate.folder("ucr", folder) / "Airline")
    return series.value_NC, month_of(series.time_N)


def month_of(time_N: np.ndarray) -> np.ndarray:
    """The month of the year, one-hot N x 12, float32."""
    if time_N.dtype.kind != "M":
        raise ValueError(f"got the times {time_N[:3]} …; expected months, as 1961-01. Write them so")
    return np.eye(12, dtype=np.float32)[time_N.astype("datetime64[M]").astype(np.int64) % 12]


@cache
def _read(folder: Path) -> Series:
    locate.check(folder, FILES, where=WHERE)
    return read_series(folder / "Airline.csv", time="Date", series=["Passengers"])
