"""Windows of time series, as a function of the step: a history and the values that followed it.

    tables of series  ──missing: the last value before, and weight 0──►  windows, none across two tables

Unshuffled, a pass is a rolling-origin evaluation: every window once, the short last batch padded.
Dimensions: B windows, L steps of history, H of the horizon, T = L + H, C series, K known columns, N times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from jaxmodels.data.order import Remainder
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.data.series import filled
from jaxmodels.runs.learned import remembering

Tables = Sequence[Mapping[str, np.ndarray]]


class SeriesWindows(ArrayPipeline):
    """Windows over one table of series, or over several that need not be equally long.

    open: a function that returns, for each table, "value" (float, NC, scaled; nan is missing) and, with
        known columns, "known" (float, NK).
    series, known: C and K. stride: steps between the starts of windows.

    A batch holds "history" (BLC), "target" (BHC) and "weight" (BHC; 0 where a target is missing, and for
    padding), and, with known columns, "known" (BTK), all float32. A missing value of a history is the last
    one before it in its table, or 0 where there is none.
    """

    def __init__(
        self,
        open: Callable[[], Tables],
        *,
        history: int,
        horizon: int,
        batch: int,
        series: int = 1,
        known: int = 0,
        stride: int = 1,
        seed: int | None = None,
        remainder: Remainder | None = None,
    ):
        if min(history, horizon, series, stride) < 1 or known < 0:
            raise ValueError(
                f"SeriesWindows: got history={history}, horizon={horizon}, series={series}, stride={stride}, "
                f"known={known}; expected 1 or more of each, and 0 or more known columns. Change them"
            )
        future = ((horizon, series), np.dtype(np.float32))
        spec = {"history": ((history, series), np.dtype(np.float32)), "target": future, "weight": future}
        if known:
            spec["known"] = ((history + horizon, known), np.dtype(np.float32))
        super().__init__({}, batch=batch, seed=seed, remainder=remainder, spec=spec)
        self._tables = remembering(open)
        self.history, self.horizon, self.stride = history, horizon, stride
        self._series, self._known = series, known

    @cached_property
    def _read(self) -> tuple[dict[str, np.ndarray], list[int]]:
        """All tables, one after the other, and the length of each."""
        tables = self._tables()
        if not tables:
            raise ValueError("SeriesWindows: got no table; expected one or more. Give some")
        for table in tables:
            self._check(table)
        value_NC = np.concatenate([filled(np.asarray(table["value"], np.float32)) for table in tables])
        observed_NC = np.concatenate([~np.isnan(np.asarray(table["value"])) for table in tables])
        arrays = {"value": value_NC, "observed": observed_NC.astype(np.float32)}
        if self._known:
            arrays["known"] = np.concatenate([np.asarray(table["known"], np.float32) for table in tables])
        return arrays, [len(table["value"]) for table in tables]

    def _check(self, table: Mapping[str, np.ndarray]) -> None:
        shape, least = np.shape(table["value"]), self.history + self.horizon
        if len(shape) != 2 or shape[1] != self._series:
            raise ValueError(
                f"SeriesWindows: got values of the shape {shape}; expected (times, {self._series}), a column "
                "for each series. Give such an array, or say series="
            )
        if shape[0] < least:
            raise ValueError(
                f"SeriesWindows: got a series of {shape[0]:,} steps; expected at least {least:,}, a history "
                f"of {self.history:,} and a horizon of {self.horizon:,}. Shorten them, or leave it out"
            )
        shape_NK = np.shape(table["known"]) if "known" in table else ()
        if self._known and shape_NK != (shape[0], self._known):
            raise ValueError(
                f"SeriesWindows: got known columns of the shape {shape_NK}; expected "
                f"{(shape[0], self._known)}, a row for each time. Give such an array, or say known="
            )

    def _opened(self) -> dict[str, np.ndarray]:
        return self._read[0]

    def _windows(self) -> list[int]:
        """The windows of each table."""
        return [1 + (n - self.history - self.horizon) // self.stride for n in self._read[1]]

    def _count(self) -> int:
        return sum(self._windows())

    def columns(self) -> dict[str, np.ndarray]:
        """The series: a row is one time."""
        arrays = self.arrays
        columns = {"history": arrays["value"], "target": arrays["value"], "weight": arrays["observed"]}
        return columns | ({"known": arrays["known"]} if self._known else {})

    def gather(self, arrays: Mapping[str, Any], indices_B: Any) -> dict[str, Any]:
        """The windows at these indices; works on NumPy and on JAX arrays."""
        first_B = indices_B * self.stride
        lengths, windows = self._read[1], np.cumsum(self._windows())
        for n, length in enumerate(lengths[:-1]):  # to the rows of the next table
            jump = length - (int(windows[n]) - (int(windows[n - 1]) if n else 0)) * self.stride
            first_B = first_B + (indices_B >= int(windows[n])) * jump
        row_BT = (first_B[:, None] + np.arange(self.history + self.horizon, dtype=np.int32)).clip(
            0, sum(lengths) - 1
        )
        value_BTC, real_B = arrays["value"][row_BT], indices_B >= 0
        weight_BHC = arrays["observed"][row_BT[:, self.history :]] * real_B[:, None, None]
        batch = {
            "history": value_BTC[:, : self.history],
            "target": value_BTC[:, self.history :],
            "weight": weight_BHC.astype(np.float32),
        }
        return batch | ({"known": arrays["known"][row_BT]} if self._known else {})

    def describe(self) -> str:
        """The data and its batches, in one phrase."""
        kind = f"{self._series:,} series, {self.history:,} steps and the {self.horizon:,} after them"
        return f"{kind}: {super().describe()}"
