"""Numbers as quantiles of the normal distribution, whatever their own is: outliers lose their pull.

Dimensions: N rows, F columns, Q quantiles.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

LIMIT = 5.2  # of the result: what lies outside the training values is as far as one in ten million is


class Quantiles(NamedTuple):
    """Evenly spaced quantiles of each column's training values; nan is missing."""

    value_FQ: np.ndarray

    @classmethod
    def of(cls, train_NF: np.ndarray, quantiles: int = 1000) -> Quantiles:
        """From these rows alone; at most as many quantiles as there are rows."""
        train_NF = np.asarray(train_NF, np.float64)
        for f, column_N in enumerate(train_NF.T):
            if not np.isfinite(column_N).any() or np.isinf(column_N).any() or quantiles < 2:
                raise ValueError(
                    f"Quantiles: got {quantiles} quantiles and, in column {f}, "
                    f"{int(np.isfinite(column_N).sum()):,} finite of {len(column_N):,} values; expected two "
                    "quantiles or more and finite values, or nan where one is missing. Leave the column out"
                )
        at_Q = np.linspace(0, 1, max(2, min(quantiles, len(train_NF))))
        return cls(np.nanquantile(train_NF, at_Q, axis=0).T)

    def normal(self, x_NF: np.ndarray) -> np.ndarray:
        """Normal quantiles, float32; nan stays nan. A value that stands in several has the middle of them."""
        at_Q = np.linspace(0, 1, self.value_FQ.shape[1])
        columns = []
        for x_N, value_Q in zip(np.asarray(x_NF, np.float64).T, self.value_FQ, strict=True):
            up = np.interp(x_N, value_Q, at_Q)
            down = 1 - np.interp(-x_N, -value_Q[::-1], at_Q)
            columns.append((up + down) / 2)
        share_NF = np.stack(columns, 1)
        inverse = np.vectorize(NormalDist().inv_cdf, otypes=[np.float64])
        missing_NF = np.isnan(share_NF)
        inside_NF = np.where(missing_NF, 0.5, share_NF).clip(1e-7, 1 - 1e-7)
        return np.where(missing_NF, np.nan, inverse(inside_NF)).clip(-LIMIT, LIMIT).astype(np.float32)
