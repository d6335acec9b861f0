"""Columns of tables as arrays: the type that holds a column's values, and the choice of columns.

Whole numbers become int32 (int64 where that is too small), other numbers float32 (float64 where that does not
hold every digit written, as in times in seconds), and everything else strings (NumPy's StringDType). A
missing value (nothing, na, n/a, nan, null or none) is nan among numbers; a column of missing values alone
holds strings. So does a column of whole numbers that no type holds exactly, such as 2**60 + 1 beside a
missing value: those are ids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodels.data.narrowing import EXACT
from jaxmodels.data.unpack import Unreadable

MISSING = {"", "na", "n/a", "nan", "null", "none"}


def chosen(path: Path, names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """The columns asked for, all where that is None; raises Unreadable where a file lacks one."""
    missing = sorted(set(columns or ()) - set(names))
    known = ", ".join(names[:30]) + " …" * (len(names) > 30)
    if columns is not None and not columns:
        raise Unreadable(f"{path}: got columns=[]; expected some of {known}. Leave columns= out for all")
    if missing:
        raise Unreadable(
            f"{path} has no column {', '.join(missing)}: got the columns {known}; expected those of "
            "columns=. Ask for others, or correct the file"
        )
    return list(names if columns is None else columns)


def from_texts(texts: list[str]) -> np.ndarray:
    """A column of CSV."""
    missing = [text.strip().lower() in MISSING for text in texts]
    if not all(missing):
        try:
            return _numbers([None if m else _number(text) for text, m in zip(texts, missing, strict=True)])
        except ValueError:
            pass
    return np.array(texts, np.dtypes.StringDType())


def _number(text: str) -> int | float:
    if "_" in text:  # Python reads 1_000 as a number; no table means that
        raise ValueError(text)
    try:
        return int(text)
    except ValueError:
        return float(text)


def _numbers(values: list[Any]) -> np.ndarray:
    """Numbers, None where one is missing."""
    types = {type(v) for v in values}
    largest = max((abs(v) for v in values if type(v) is int), default=0)
    if largest >= 1 << 63:
        raise ValueError("got a number that is too large for a 64-bit integer")
    if types <= {int, bool}:
        return np.array(values, bool if types == {bool} else np.int32 if largest < 1 << 31 else np.int64)
    for v in values:
        if type(v) is int and int(float(v)) != v:
            raise ValueError(
                f"got {v} beside missing values or fractions, which float64 does not hold exactly"
            )
    numbers = np.array([math.nan if v is None else v for v in values], np.float64)
    return numbers.astype(np.float32) if _keeps_digits(numbers) else numbers


def _keeps_digits(numbers: np.ndarray) -> bool:
    """Whether float32 holds every digit: whole numbers up to 2**24, others of at most seven digits."""
    finite = numbers[np.isfinite(numbers)]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        kept = finite.astype(np.float32).astype(np.float64)
        finite, kept = finite[kept != finite], kept[kept != finite]
        if np.abs(finite).max(initial=0) > EXACT:
            return False
        scale = 10.0 ** (6 - np.floor(np.log10(np.abs(finite))))
        return bool((np.round(kept * scale) / scale == finite).all())


def from_values(values: list[Any], column: str) -> np.ndarray:
    """A column of JSON or Parquet values; lists become further dimensions. column: its name, for errors."""
    shape: tuple[int, ...] = (len(values),)
    while values and all(isinstance(v, list | np.ndarray) for v in values):
        lengths = {len(v) for v in values}
        if len(lengths) != 1:
            raise Unreadable(
                f"{column}: got lists of {min(lengths)} to {max(lengths)} values; expected lists of one "
                "length, for an array. Leave the column out with columns=, or pad it"
            )
        shape += (lengths.pop(),)
        values = [x for v in values for x in (v.tolist() if isinstance(v, np.ndarray) else v)]
    if any(v is not None for v in values) and all(isinstance(v, int | float | None) for v in values):
        try:
            return _numbers(values).reshape(shape)
        except ValueError as error:
            raise Unreadable(
                f"{column}: {error}; expected numbers that a 64-bit type holds. Write ids as texts, fill in "
                "missing values, or leave the column out with columns="
            ) from error
    if all(isinstance(v, str | None) for v in values):
        return np.array(["" if v is None else v for v in values], np.dtypes.StringDType()).reshape(shape)
    kinds = sorted({type(v).__name__ for v in values})
    raise Unreadable(
        f"{column}: got values of types {', '.join(kinds)}; expected all numbers, all strings or lists of "
        "them. Write it so, or leave it out with columns="
    )
