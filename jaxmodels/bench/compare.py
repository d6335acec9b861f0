"""Two or more records side by side: ratios of times, with intervals from the rounds.

The ratio is that of the geometric means of the rounds' medians; its interval is Welch's, of the logarithms,
at 95% (doi:10.1093/biomet/34.1-2.28).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from jaxmodels.bench.record import Record, key, title

LEVEL = 0.95


class Comparison(NamedTuple):
    """How many times as long a program takes as in the first record; low and high bound the 95% interval."""

    title: str
    record: int  # index
    ratio: float
    low: float
    high: float

    def slower(self, tolerance: float) -> bool:
        """Whether the whole interval lies above 1, and the ratio beyond 1 + tolerance."""
        return self.low > 1 and self.ratio > 1 + tolerance


def compare(records: Sequence[Record]) -> list[Comparison]:
    """Each program that the first record and another one have; a ValueError where they share none."""
    first = {key(result): result for result in records[0]["results"]}
    found = []
    for n, record in enumerate(records[1:], 1):
        for result in record["results"]:
            if (before := first.get(key(result))) is not None:
                found.append(Comparison(title(result), n, *ratio(before, result)))
    if not found:
        raise ValueError(
            "bench compare: got records without a common program; expected the same cases in the same sizes "
            "and precision. Measure with the same options"
        )
    return found


def ratio(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[float, float, float]:
    """(times as long as before, lower and upper bound); the bounds are infinitely wide for one round."""
    a, b = np.log(before["round_medians_s"]), np.log(after["round_medians_s"])
    middle = float(b.mean() - a.mean())
    if min(len(a), len(b)) < 2:
        return math.exp(middle), 0.0, math.inf
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    if va + vb == 0:
        return (math.exp(middle),) * 3
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    width = float(stats.t.ppf((1 + LEVEL) / 2, freedom) * math.sqrt(va + vb))
    return math.exp(middle), math.exp(middle - width), math.exp(middle + width)
