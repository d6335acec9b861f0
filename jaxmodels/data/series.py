"""Time series from a table: read, checked for order, duplicates and gaps, and scaled by their training span.

Dimensions: N times, C series, K columns that are known ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxmodels import choices
from jaxmodels.data.formats.tables import PathLike, Table, read_table
from jaxmodels.runs.learned import learned

Gaps = Literal["refuse", "missing"]


class Series(NamedTuple):
    """Series at the same, evenly spaced times."""

    value_NC: np.ndarray
    """float32, nan where a value is missing."""
    time_N: np.ndarray
    """datetime64, or numbers."""
    known_NK: np.ndarray
    """float32; K is 0 without such columns."""
    names: tuple[str, ...]

    def filled(self) -> np.ndarray:
        """Each missing value replaced by the last one before it, 0 where there is none, as windows do."""
        return filled(self.value_NC)

    def ahead(self, steps: int) -> np.ndarray:
        """The next times, in the even steps of those before."""
        if len(self.time_N) < 2:
            raise ValueError(
                f"got {len(self.time_N)} times; expected two or more, which say how far apart the next are. "
                "Add rows"
            )
        return self.time_N[-1] + np.arange(1, steps + 1) * np.diff(self.time_N).min()


class Scaler(NamedTuple):
    """Standardises each series: (x - mean) / deviation, both of the training span."""

    mean_C: np.ndarray
    deviation_C: np.ndarray

    def scale(self, value_NC: np.ndarray) -> np.ndarray:
        """Values in deviations from the mean, float32; nan stays nan."""
        return ((value_NC - self.mean_C) / self.deviation_C).astype(np.float32)

    def restore(self, scaled_NC: np.ndarray) -> np.ndarray:
        """The opposite of scale."""
        return (scaled_NC * self.deviation_C + self.mean_C).astype(np.float32)


def read_series(
    path: PathLike,
    *,
    time: str,
    series: Sequence[str],
    known: Sequence[str] = (),
    gaps: Gaps = "refuse",
) -> Series:
    """The series of a table (csv, jsonl, parquet) with a row for each time, oldest first.

    time: the column of dates (ISO 8601) or numbers. series: columns to forecast; an empty field is a missing
    value. known: columns whose future is known, such as holidays.
    gaps: what to do with times that are not there: "missing" adds them with missing values, which needs a
    table without known columns.
    """
    choices.check("series", "gaps", gaps, Gaps)
    return from_table(
        read_table(path),
        time=time,
        series=series,
        known=known,
        gaps=gaps,
        name=str(path),
    )


def from_table(
    table: Table,
    *,
    time: str,
    series: Sequence[str],
    known: Sequence[str] = (),
    gaps: Gaps = "refuse",
    name: str = "the table",
) -> Series:
    """See read_series. name: of the table, for errors."""
    choices.check("read_series", "gaps", gaps, Gaps)
    if not series:
        raise ValueError(f"{name}: got no series; expected one column or more. Name them: series=[...]")
    if absent := [column for column in (time, *series, *known) if column not in table]:
        raise ValueError(
            f"{name}: got the columns {', '.join(table)}; expected {absent[0]!r} among them. "
            "Name a column of it"
        )
    value_NC = _numbers(table, series, name)
    known_NK = _numbers(table, known, name) if known else np.zeros((len(value_NC), 0), np.float32)
    if np.isnan(known_NK).any():
        row, k = np.argwhere(np.isnan(known_NK))[0]
        raise ValueError(
            f"{name}: got no value of {known[k]!r} in row {row:,}; expected one everywhere, as it is known "
            "ahead. Fill it in"
        )
    time_N = _times(table[time], f"{name}, {time!r}")
    place_N = _places(time_N, f"{name}, {time!r}", gaps)
    if len(place_N) and place_N[-1] + 1 > len(place_N):
        if known:
            raise ValueError(
                f"{name}: got gaps beside columns that are known ahead; expected their values at every time. "
                "Add the missing rows"
            )
        whole = int(place_N[-1]) + 1
        filled_NC = np.full((whole, len(series)), np.nan, np.float32)
        filled_NC[place_N] = value_NC
        value_NC, known_NK = filled_NC, np.zeros((whole, 0), np.float32)
        time_N = time_N[0] + np.arange(whole) * np.diff(time_N).min()
    return Series(value_NC, time_N, known_NK, tuple(series))


def filled(value_NC: np.ndarray) -> np.ndarray:
    """Each missing value (nan) replaced by the last one before it; 0 where there is none."""
    last_NC = np.where(np.isnan(value_NC), -1, np.arange(len(value_NC))[:, None])
    last_NC = np.maximum.accumulate(last_NC, 0)
    return np.where(last_NC < 0, 0, np.take_along_axis(value_NC, last_NC.clip(0), 0)).astype(np.float32)


def times_ahead(column: np.ndarray, steps: int) -> list[str] | list[float]:
    """The next times of a table's column, as they are written: 2024-05, 2024-05-01 or 2024-05-01 13:00:00."""
    time_N = _times(column, "the times")
    ahead_N = Series(np.zeros((0, 0)), time_N, np.zeros((0, 0)), ()).ahead(steps)
    if ahead_N.dtype.kind != "M":
        return ahead_N.tolist()
    both_N = np.concatenate([time_N, ahead_N])
    if (both_N.astype("datetime64[D]") == both_N).all() and np.datetime_data(both_N.dtype)[0] != "M":
        ahead_N = ahead_N.astype("datetime64[D]")
    return [str(time).replace("T", " ") for time in ahead_N]


def fitted(name: str, train_NC: np.ndarray | Callable[[], np.ndarray], names: Sequence[str]) -> Scaler:
    """The Scaler of the training span, without missing values, which a run keeps (see data/learned.py).

    name: of the data, one for each scaler of an experiment. train_NC: also a function, which is not called
        where the run has the scaler.
    """

    def compute() -> dict[str, list[float]]:
        x_NC = np.asarray(train_NC() if callable(train_NC) else train_NC, np.float64)
        for c, series in enumerate(names):
            values = x_NC[:, c][~np.isnan(x_NC[:, c])]
            if not len(values) or (values == values[0]).all():
                got = f"{values[0]:g} alone" if len(values) else "no value"
                raise ValueError(
                    f"{series!r}: got {got} in the {len(x_NC):,} rows of the training span; expected values "
                    "that differ. Leave the series out, or train on a longer span"
                )
        return {"mean": np.nanmean(x_NC, 0).tolist(), "deviation": np.nanstd(x_NC, 0).tolist()}

    found: Any = learned(f"{name}: means and deviations", compute)
    return Scaler(np.array(found["mean"]), np.array(found["deviation"]))


def _numbers(table: Table, columns: Sequence[str], name: str) -> np.ndarray:
    for column in columns:
        x = table[column]
        if x.dtype.kind not in "iufb" or np.isinf(x.astype(np.float64)).any():
            raise ValueError(
                f"{name}, {column!r}: got texts or infinite numbers; expected finite numbers, or nothing "
                "where one is missing. Correct the column"
            )
    return np.stack([table[column].astype(np.float32) for column in columns], 1)


def _times(column: np.ndarray, name: str) -> np.ndarray:
    """Numbers as they are, dates as datetime64[s], or [M] where all are the first of a month."""
    if column.dtype.kind in "iuf" and not np.isnan(column.astype(np.float64)).any():
        return column.astype(np.float64 if column.dtype.kind == "f" else np.int64)
    try:
        if column.dtype.kind != "M":
            column = np.array([str(text).strip() for text in column], "datetime64[s]")
        if np.isnat(column).any():
            raise ValueError("an empty field")
    except ValueError as error:
        raise ValueError(
            f"{name}: got {error}; expected numbers, or dates as 2016-07-01 or 2016-07-01 13:00:00. "
            "Rewrite it"
        ) from error
    month = column.astype("datetime64[M]")
    return month if (month.astype(column.dtype) == column).all() and len(column) > 1 else column


def _places(time_N: np.ndarray, name: str, gaps: Gaps) -> np.ndarray:
    """How many steps each time is after the first; raises where the times are no even steps."""
    apart_N = np.diff(time_N)
    zero = np.zeros((), apart_N.dtype)
    for bad_N, what, do in (
        (apart_N < zero, "is before the one above", "Sort the table by time"),
        (apart_N == zero, "is there twice", "Keep one row of each time, or read several series one by one"),
    ):
        if bad_N.any():
            row = int(bad_N.argmax()) + 1
            raise ValueError(
                f"{name}: got {time_N[row]} in row {row:,}, which {what}; expected each time once, oldest "
                f"first. {do}"
            )
    if not len(apart_N):
        return np.zeros(len(time_N), np.int64)
    step = apart_N.min()
    steps_N = apart_N / step
    whole_N = np.round(steps_N).astype(np.int64)
    uneven = np.abs(steps_N - whole_N) > 1e-3
    if uneven.any() or (gaps == "refuse" and (whole_N > 1).any()):
        row = int((uneven if uneven.any() else whole_N > 1).argmax())
        do = "Give even steps" if uneven.any() else 'Add the rows, or read it with gaps="missing"'
        raise ValueError(
            f"{name}: got {time_N[row]} and then {time_N[row + 1]}; expected steps of {step}. {do}"
        )
    return np.concatenate([[0], np.cumsum(whole_N)])
