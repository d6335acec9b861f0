"""What the columns of a table are, learned from the rows that train: numbers, dates, categories, or no use.

Dimension: N rows.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data.formats.table_values import date_of, level_of, number_of

Kind = Literal["number", "date", "category", "ignored"]
MOST = 0.95  # of a column's values must be numbers, or dates, for it to be one of numbers
FEW = 20  # rows, or levels, that say little: a table of fewer rows has no ids
IDS = re.compile(r"|unnamed: 0|(.*[_ .-])?(id|index|key|uuid|guid)|.*[a-z](Id|ID)")
SLOTS = 100  # levels of a category that have a feature of their own
FLOAT32 = 1 << 24  # float32 does not tell larger whole numbers apart


@dataclass(frozen=True)
class Column:
    """A column of a table, as the training rows have it."""

    name: str
    kind: Kind
    why: str = ""  # it is ignored
    mean: float = 0.0  # of numbers and dates (in days)
    deviation: float = 1.0
    missing: bool = False  # whether a training row lacks it
    levels: tuple[str, ...] = ()  # of a category, the commonest first
    invalid: str = ""  # what of the training rows counts as missing, and why

    def __post_init__(self):
        choices.check("Column", "kind", self.kind, Kind)

    @property
    def described(self) -> str:
        """What was chosen, in one phrase."""
        if self.kind == "ignored":
            return f"ignored: {self.why}"
        if self.kind == "category":
            text = f"category of {len(self.levels):,}: {reprlib.repr([*self.levels[:4]])[1:-1]}"
            text += " …" * (len(self.levels) > 4)
        else:
            unit = " days since 1970" if self.kind == "date" else ""
            text = f"{self.kind}, mean {self.mean:,.6g}{unit}, deviation {self.deviation:,.6g}"
        missing = ", sometimes missing" * self.missing
        return text + missing + (f"; {self.invalid}" if self.invalid else "")

    @property
    def width(self) -> int:
        """Features F of the column: a number, and 1 where it is missing; or 1 in the place of a category.

        Place 0 is for what is missing or unknown, the last of many for rare categories together.
        """
        if self.kind == "category":
            return 1 + min(len(self.levels), SLOTS + 1)
        return 1 + self.missing

    def features(self, values_N: Sequence[float | None]) -> np.ndarray:
        """Features NF, float32, of what `value` gave."""
        found = np.zeros((len(values_N), self.width), np.float32)
        filled = np.array([value or 0.0 for value in values_N])
        if self.kind == "category":
            found[np.arange(len(found)), np.minimum(filled.astype(int), SLOTS + 1)] = 1
            return found
        found[:, 0] = np.clip(filled, -1e9, 1e9)
        if self.missing:
            found[:, 1] = [value is None for value in values_N]
        return found

    def value(self, cell: Any) -> float | None:
        """A cell standardized, or the number of its category from 1; None where it is missing.

        A ValueError says why it cannot be used.
        """
        if self.kind == "category":
            level = level_of(cell)
            if level is None:
                return None
            index = self._index.get(level)
            if index is None:
                known = ", ".join(map(repr, self.levels[:8])) + " …" * (len(self.levels) > 8)
                raise ValueError(
                    f"got {reprlib.repr(cell)} for {self.name}; expected one of the {len(self.levels):,} "
                    f"categories of training, {known}"
                )
            return float(index)
        try:
            number = (date_of if self.kind == "date" else number_of)(cell)
        except ValueError as error:
            wanted = "a date as in 2024-12-31" if self.kind == "date" else "a finite number"
            raise ValueError(f"got {reprlib.repr(cell)} for {self.name}; expected {wanted}") from error
        return None if number is None else (number - self.mean) / self.deviation

    @cached_property
    def _index(self) -> dict[str, int]:
        return {level: i for i, level in enumerate(self.levels, 1)}


def learn_column(name: str, cells: Sequence[Any], kind: Kind | None = None) -> Column:
    """What a column is by its training cells; kind: what it is in any case."""
    if kind is not None:
        choices.check("learn_column", "kind", kind, Kind)
    present = [level for level in map(level_of, cells) if level is not None]
    missing = len(present) < len(cells)
    distinct = {*present}
    if not present:
        return Column(name, "ignored", "no training row has a value")
    if len(distinct) == 1 and not missing:
        return Column(name, "ignored", f"it is always {reprlib.repr(present[0])}")
    if kind is None and len(distinct) == 1:  # all that varies is whether it is there
        kind = "category"
    for numeric, parse in (("number", number_of), ("date", date_of)):
        if kind == numeric or kind is None:
            numbers, faults = _parsed(cells, parse)
            if kind or len(numbers) >= MOST * len(present):
                if kind is None and numeric == "number" and (why := _id(name, numbers, len(present))):
                    return Column(name, "ignored", why)
                return _numeric(name, numeric, numbers, faults, missing)  # type: ignore[arg-type]
    if kind is None and len(distinct) > FEW and 2 * len(distinct) > len(present):
        return Column(
            name, "ignored", f"ids or free text: {len(distinct):,} different values in {len(present):,} rows"
        )
    count = Counter(present)
    levels = sorted(distinct, key=lambda level: (-count[level], level))
    return Column(name, "category", missing=missing, levels=tuple(levels))


def _parsed(cells: Sequence[Any], parse: Callable[[Any], float | None]) -> tuple[list[float], list[Any]]:
    """(the numbers, the cells that are none)."""
    numbers, faults = [], []
    for cell in cells:
        try:
            number = parse(cell)
        except ValueError:
            faults.append(cell)
        else:
            if number is not None:
                numbers.append(number)
    return numbers, faults


def _numeric(
    name: str, kind: Literal["number", "date"], numbers: list[float], faults: list[Any], missing: bool
) -> Column:
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = float(np.mean(numbers or [0])), float(np.std(numbers or [0]))
    if not math.isfinite(mean) or not math.isfinite(deviation):
        return Column(name, "ignored", "its numbers are too large to add")
    if not deviation > 1e-12 * max(abs(mean), 1e-300) and not missing and not faults:
        return Column(name, "ignored", "its numbers differ by rounding alone")
    invalid = f"no {kind}, and so missing: {len(faults):,}, as {reprlib.repr(faults[0])}" if faults else ""
    return Column(name, kind, "", mean, deviation or 1.0, missing or bool(faults), invalid=invalid)


def _id(name: str, numbers: list[float], count: int) -> str:
    """Why numbers are only names of rows; "" where they are not."""
    whole = all(number == int(number) for number in numbers)
    if len(numbers) < max(FEW, count) or not whole or len({*numbers}) < len(numbers):
        return ""
    low, high = min(numbers), max(numbers)
    named = IDS.fullmatch(name.strip()) or IDS.fullmatch(name.strip().lower())
    if named or high - low < 2 * len(numbers) or min(map(abs, numbers)) >= FLOAT32:
        return f"ids: whole numbers from {low:,.0f} to {high:,.0f} that never repeat"
    return ""
