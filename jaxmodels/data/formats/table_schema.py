"""A table of mixed columns as features and a target: everything is learned from the rows that train.

    cells ──Column.value──► numbers (standardized; 0 where missing), 1 where missing, indices of categories

Dimensions: N rows, F features.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data.formats.table_columns import Column, Kind, learn_column
from jaxmodels.data.formats.table_rows import table_rows
from jaxmodels.data.formats.table_values import level_of, number_of
from jaxmodels.data.unpack import Unreadable

Cells = dict[str, list[Any]]
Target = Literal["auto", "class", "number"]
CLASSES = 20  # distinct whole numbers that a target may have and still be of classes
LEAST = 10  # rows with a target


def read_cells(
    path: str | os.PathLike[str], target: str, warn: Callable[[str], Any] = print
) -> tuple[Cells, list[Any]]:
    """(the columns of a table, the target's): rows that cannot be read, or lack a target, are left out.

    warn: is told how many of each.
    """
    cells: Cells = {}
    broken: list[str] = []
    without = 0
    for number, row in enumerate(table_rows(path), 1):
        if row.error:
            broken.append(f"row {number}: {row.error}")
            continue
        if target not in row.values:
            raise Unreadable(
                f"{path}, row {number}: got the columns {reprlib.repr([*row.values])}; expected one called "
                f"{target!r}, the target. Name it with --target"
            )
        if not cells:
            cells = {name: [] for name in row.values}
        if row.values.keys() != cells.keys():
            broken.append(f"row {number}: got the columns {reprlib.repr([*row.values])}, others than before")
        elif level_of(row.values[target]) is None:
            without += 1
        else:
            for name, column in cells.items():
                column.append(row.values[name])
    targets = cells.pop(target, [])
    if broken:
        warn(f"{path}: {len(broken):,} rows cannot be read and are left out, such as {broken[0]}")
    if without:
        warn(f"{path}: {without:,} rows have no {target} and are left out")
    if len(targets) < LEAST:
        raise Unreadable(
            f"{path}: got {len(targets)} rows with a value of {target}; expected at least {LEAST}. Add rows"
        )
    return cells, targets


@dataclass(frozen=True)
class TableSchema:
    """The columns of a table, and what its target is."""

    target: str
    classes: tuple[str, ...]
    """Of the target; () where it is a number."""
    mean: float
    deviation: float
    """Of a target that is a number."""
    why: str
    """What decided whether it is."""
    columns: tuple[Column, ...]

    @classmethod
    def learn(
        cls,
        cells: Mapping[str, Sequence[Any]],
        targets: Sequence[Any],
        rows_N: Sequence[int] | np.ndarray,
        *,
        target: str,
        kind: Target = "auto",
        chosen: Mapping[str, Kind] = {},
    ) -> TableSchema:
        """From these rows alone. chosen: what columns are in any case, by name; "ignored" leaves one out."""
        choices.check("TableSchema", "kind", kind, Target)
        if unknown := [name for name in chosen if name not in cells]:
            raise ValueError(
                f"got no column {unknown[0]!r}; expected one of {', '.join([*cells][:30])}. Name one of those"
            )
        columns = []
        for name, column in cells.items():
            if chosen.get(name) == "ignored":
                columns.append(Column(name, "ignored", "as asked"))
            else:
                columns.append(learn_column(name, [column[i] for i in rows_N], chosen.get(name)))
        if all(column.kind == "ignored" for column in columns):
            found = "; ".join(f"{column.name} {column.described}" for column in columns[:5])
            raise ValueError(
                f"got no column to predict {target} from ({found}); expected one at least. Give another table"
            )
        classes, mean, deviation, why = _target(target, [targets[i] for i in rows_N], kind)
        return cls(target, classes, mean, deviation, why, tuple(columns))

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> TableSchema:
        """The schema that `as_json` is of."""
        columns = [Column(**{**column, "levels": tuple(column["levels"])}) for column in value["columns"]]
        return cls(**{**value, "classes": tuple(value["classes"]), "columns": tuple(columns)})

    def as_json(self) -> dict[str, Any]:
        """Its fields, as JSON."""
        return json.loads(
            json.dumps(
                {
                    **{name: getattr(self, name) for name in _FIELDS},
                    "columns": [asdict(c) for c in self.columns],
                }
            )
        )

    @property
    def text(self) -> str:
        """What was chosen, a line for each column."""
        width = max(len(column.name) for column in self.columns)
        kind = f"{len(self.classes):,} classes" if self.classes else "a number"
        lines = [f"{self.target}: {kind}, as {self.why}"]
        return "\n".join([*lines, *(f"  {c.name:{width}}  {c.described}" for c in self.columns)])

    @cached_property
    def used(self) -> tuple[Column, ...]:
        """The columns that are not ignored."""
        return tuple(column for column in self.columns if column.kind != "ignored")

    @property
    def fields(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(column.name for column in self.used)

    @property
    def width(self) -> int:
        """Features F."""
        return sum(column.width for column in self.used)

    def features(self, row: Mapping[str, Any]) -> np.ndarray:
        """Features F of a row, float32; a ValueError names every cell that cannot be used."""
        values, faults = [], []
        for column in self.used:
            try:
                values.append(column.value(row[column.name]))
            except ValueError as error:
                faults.append(str(error))
        if faults:
            raise ValueError(f"{'; '.join(faults)}. Correct the row")
        found = [column.features([value]) for column, value in zip(self.used, values, strict=True)]
        return np.concatenate(found, 1)[0]

    def matrix(self, cells: Mapping[str, Sequence[Any]], rows_N: Sequence[int] | np.ndarray) -> np.ndarray:
        """Features of rows, NF, float32: a cell that cannot be used counts as missing."""
        if absent := [name for name in self.fields if name not in cells]:
            raise ValueError(
                f"got a table without the column {absent[0]!r}; expected {', '.join(self.fields)}. Add it"
            )
        found = []
        for column in self.used:
            cells_N = cells[column.name]
            found.append(column.features([_lenient(column, cells_N[i]) for i in rows_N]))
        return np.concatenate(found, 1)

    def target_of(self, cell: Any) -> float:
        """A target as the index of its class, or standardized; nan where it is neither."""
        if self.classes:
            level = level_of(cell)
            return float(self.classes.index(level)) if level in self.classes else np.nan
        try:
            number = number_of(cell)
        except ValueError:
            return np.nan
        return np.nan if number is None else (number - self.mean) / self.deviation


def _lenient(column: Column, cell: Any) -> float | None:
    try:
        return column.value(cell)
    except ValueError:
        return None


_FIELDS = tuple(field.name for field in fields(TableSchema))


def _target(name: str, cells: Sequence[Any], kind: Target) -> tuple[tuple[str, ...], float, float, str]:
    """(classes, mean, deviation, what decided) of a target."""
    levels = [level for level in map(level_of, cells) if level is not None]
    distinct = {*levels}
    numbers: list[float] = []
    for cell in cells:
        try:
            number = number_of(cell)
        except ValueError:
            continue
        if number is not None and not isinstance(cell, bool):
            numbers.append(number)
    why = "asked for"
    if kind == "auto":
        are_numbers = len(numbers) >= 0.95 * len(levels)
        whole = are_numbers and all(x == int(x) for x in numbers)
        few = whole and len(distinct) <= CLASSES and 4 * len(distinct) <= len(levels)
        kind = "number" if are_numbers and not few else "class"
        why = "its values are no numbers"
        if few:
            why = f"it has only {len(distinct)} different whole numbers (--kind number takes them as such)"
        elif are_numbers:
            why = f"its values are numbers, {len(distinct):,} different ones"
    if kind == "class":
        if len(distinct) < 2 or 2 * len(distinct) > len(levels):
            raise ValueError(
                f"got the target {name} with {len(distinct):,} different values in {len(levels):,} rows; "
                "expected classes of some rows each, at least two. Choose another target"
            )
        return tuple(sorted(distinct, key=_natural)), 0.0, 1.0, why
    deviation = float(np.std(numbers)) if numbers else 0.0
    if not 0 < deviation < np.inf:
        raise ValueError(
            f"got the target {name} with {len({*numbers})} different numbers; expected some. Choose another"
        )
    return (), float(np.mean(numbers)), deviation, why


def _natural(level: str) -> tuple[float, str]:
    """Numbers in their order, then texts in theirs."""
    try:
        return number_of(level) or 0.0, level
    except ValueError:
        return np.inf, level
