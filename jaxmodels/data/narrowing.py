"""The loss of 64-bit numbers in the 32 bits that a device keeps; needs NumPy alone, so file readers use it
too.

A whole number that does not fit is lost, and so is a float that becomes infinite. Any other float is
rounded to 24 bits. In a measured quantity that is harmless: the rounding is small beside the differences of
the values. In timestamps and ids it is not: 1700000000.25 and 1700000007.75 become equal. So a column is
lost where its differences are:

    root mean square of the rounding > SHARE x standard deviation

which is so for values that differ by less than about 1 / 200,000 of their mean. A column that is constant
up to the noise of 64 bits is not lost; whole numbers have no such noise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

SHARE = 0.01
NOISE = 2.0**-44  # of the mean: smaller variation is rounding alone
CHUNK = 1 << 20  # values processed together
LARGEST = float(np.finfo(np.float32).max)
EXACT = 1 << 24  # float32 holds every whole number up to here


class Loss(NamedTuple):
    """The loss of a column. row: the first that shows it, or the worst. got, expected, do: for an error."""

    row: int
    got: str
    expected: str
    do: str


def loss(x: np.ndarray, *, as_float: bool = False, share: float = SHARE) -> Loss | None:
    """The loss of x (rows first) as a 32-bit type; None where there is none, or only that of a measurement.

    as_float: x is used as float32, so large whole numbers are rounded too. share: see SHARE.
    """
    if x.dtype.kind in "iu" and x.size:
        rounded = as_float and np.iinfo(x.dtype).max > EXACT and _largest(x) > EXACT
        return _of_integers(x) or (_of_spread(x, share) if rounded else None)
    if x.dtype.kind == "f" and x.dtype.itemsize > 4 and x.size:
        return _of_floats(x) or _of_spread(x, share)
    return None


def overflow(x: np.ndarray) -> Loss | None:
    """The loss of single values that do not fit, whatever the others are: for a part of a column."""
    if x.dtype.kind in "iu" and x.size:
        return _of_integers(x)
    if x.dtype.kind == "f" and x.dtype.itemsize > 4 and x.size:
        return _of_floats(x)
    return None


def _largest(x: np.ndarray) -> int:
    return max(abs(int(x.min())), abs(int(x.max())))


def _of_integers(x: np.ndarray) -> Loss | None:
    if x.dtype.itemsize < 8:
        return None
    kept = np.iinfo(np.int32 if x.dtype.kind == "i" else np.uint32)
    if x.min() >= kept.min and x.max() <= kept.max:
        return None
    row, value = _first(x, (x < kept.min) | (x > kept.max))
    return Loss(
        row,
        str(value),
        f"whole numbers from {kept.min} to {kept.max}, the {kept.dtype} that a device keeps",
        "Renumber them if they are ids, subtract the smallest if they are times, or give measured values as "
        "np.float32",
    )


def _of_floats(x: np.ndarray) -> Loss | None:
    with np.errstate(over="ignore", invalid="ignore"):
        if np.fmax.reduce(np.abs(x), None) <= LARGEST:  # with nan alone this is False, too
            return None
        lost = np.isinf(x.astype(np.float32)) & np.isfinite(x)
    if not lost.any():
        return None
    row, value = _first(x, lost)
    return Loss(
        row,
        repr(float(value)),
        f"numbers up to {LARGEST:.3g}, the largest float32, which a device keeps",
        "Scale the column, or take its logarithm, on the host",
    )


def _of_spread(x: np.ndarray, share: float) -> Loss | None:
    rows = x.reshape(len(x), -1)
    step = max(1, CHUNK // rows.shape[1])
    number = np.zeros(rows.shape[1])
    moment, square, error = np.zeros_like(number), np.zeros_like(number), np.zeros_like(number)
    integral = np.ones(rows.shape[1], bool)
    first = rows[0].astype(np.float64)
    first[~np.isfinite(first)] = 0
    for start in range(0, len(rows), step):
        part = rows[start : start + step].astype(np.float64)
        finite = np.isfinite(part)
        # Squares of differences from the first row, because those of the values would be rounded away.
        difference = np.where(finite, part - first, 0.0)
        number += finite.sum(0)
        integral &= (np.rint(part) == part).all(0)
        moment += difference.sum(0)
        square += (difference**2).sum(0)
        with np.errstate(over="ignore", invalid="ignore"):
            error += (np.where(finite, part - part.astype(np.float32), 0.0) ** 2).sum(0)
    number = np.maximum(number, 1)
    mean = moment / number
    deviation = np.sqrt(np.maximum(square / number - mean**2, 0))
    rounding = np.sqrt(error / number)
    noise = np.where(integral, 0.0, NOISE * np.abs(first + mean))
    lost = (rounding > share * deviation) & (deviation > noise)
    if not lost.any():
        return None
    column = int(lost.argmax())
    values = rows[:, column].astype(np.float64)
    with np.errstate(invalid="ignore"):
        errors = np.nan_to_num(np.abs(values - values.astype(np.float32)))
    row = int(errors.argmax())
    value, kept = float(values[row]), float(np.float32(values[row]))
    which = f" (column {column} of {rows.shape[1]})" if rows.shape[1] > 1 else ""
    return Loss(
        row,
        f"{value!r}{which}, which is {kept!r} as float32: the rounding is "
        f"{rounding[column] / deviation[column]:.0%} of the values' standard deviation, "
        f"{deviation[column]:.3g}",
        "numbers whose differences 24 bits can hold",
        "Subtract the smallest or the mean on the host, or give np.float32 if that is precise enough",
    )


def _first(x: np.ndarray, bad: np.ndarray) -> tuple[int, Any]:
    """(row, value) of the first element that is bad."""
    index = int(bad.reshape(-1).argmax())
    return index // max(1, x.size // len(x)), x.reshape(-1)[index]
