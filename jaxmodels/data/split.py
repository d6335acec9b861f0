"""Parts of one table or folder: rows to train on and rows to hold out, disjoint and complete, the same
every time.

    rows ──strata by label──► keyed permutation of each ──► a share of every stratum in each part

The rows of each part depend on the data's order and the seed alone. Files of a folder are ordered by their
names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from jaxmodels.data.order import mix, permute

Table = Mapping[str, np.ndarray]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Part:
    """Some files of a folder with a folder for each class; image_folder and the like accept it as a folder.

    The files are chosen when the folder is read. numbers: the parts of split() or fold() that this one
    unites.
    """

    folder: Path
    sizes: tuple[float | int, ...]
    numbers: tuple[int, ...]
    seed: int
    by: str | None

    def of(self, items: Sequence[tuple[Any, int]]) -> list[tuple[Any, int]]:
        """This part of all files, which are in the order of their names; each is (file, label)."""
        strata = np.array([label for _, label in items]) if self.by is not None else None
        part = part_of(len(items), self.sizes, seed=self.seed, strata=strata)
        return [items[i] for i in np.flatnonzero(np.isin(part, self.numbers)).tolist()]


@overload
def split(
    data: Table, *held_out: float, seed: int = 0, by: str | None = None
) -> tuple[dict[str, np.ndarray], ...]: ...
@overload
def split(data: PathLike, *held_out: float, seed: int = 0, by: str | None = None) -> tuple[Part, ...]: ...
def split(data: Table | PathLike, *held_out: float, seed: int = 0, by: str | None = None) -> tuple[Any, ...]:
    """Splits data into parts: train, validation = split(data, 0.1), or with 0.1, 0.2 into three.

    Rows keep their order in a part.

    data: arrays by name with a row for each example, as read_csv returns them; or a folder for image_folder,
        text_folder and the like, which is read on their first use.
    held_out: the size of each part after the first, as a share of the rows or as their number. A share f of n
        rows is f n; the sums of the sizes are rounded, halves up.
    by: the column whose values every part has in the same shares, to within a row; of a folder "label".
    """
    if not held_out:
        raise ValueError(
            "split: got no size; expected that of each part after the first. Call split(data, 0.1)"
        )
    numbers = [(i,) for i in range(len(held_out) + 1)]
    return tuple(_parts(data, held_out, numbers, seed, by))


def fold(data: Any, number: int, *, folds: int, seed: int = 0, by: str | None = None) -> tuple[Any, Any]:
    """Splits data for k-fold cross-validation: train, held_out = fold(data, 0, folds=5).

    Fold `number` of equal parts is held out. Sizes of the folds differ by one row at most. data, seed and
    by: see split.
    """
    check_fold("fold", number, folds)
    others = tuple(i for i in range(folds) if i != number)
    train, held_out = _parts(data, (1 / folds,) * (folds - 1), [others, (number,)], seed, by)
    return train, held_out


def check_fold(owner: str, number: int, folds: int) -> None:
    """Raises ValueError unless `number` is one of at least two folds."""
    if folds < 2 or not 0 <= number < folds:
        raise ValueError(
            f"{owner}: got fold {number} of {folds}; expected at least 2 folds and one of them, from 0. "
            "Change it"
        )


def part_of(
    n: int, held_out: Sequence[float], *, seed: int = 0, strata: np.ndarray | None = None
) -> np.ndarray:
    """The part of each of n rows, 0 for the first, by the rules of split; int64.

    strata: a value for each row, which all parts have in the same shares.
    """
    sizes = _sizes(n, held_out)
    values, row_of = np.unique(np.zeros(n) if strata is None else strata, return_inverse=True)
    members = []
    for k in range(len(values)):
        (rows,) = np.nonzero(row_of == k)
        key = int(mix(np.uint64(seed % 2**64) ^ mix(np.uint64(k))))
        members.append(rows[permute(np.arange(len(rows)), len(rows), key)])
    part, taken = np.zeros(n, np.int64), np.zeros(len(values), np.int64)
    for number, size in enumerate(sizes, 1):
        counts = _shares(np.array([len(rows) for rows in members]) - taken, size)
        for rows, start, count in zip(members, taken, counts, strict=True):
            part[rows[start : start + count]] = number
        taken += counts
    return part


def _sizes(n: int, held_out: Sequence[float]) -> list[int]:
    """The number of rows of each part after the first; the ends of shares are rounded, so no error adds
    up."""
    sizes, end = [], 0.0
    for size in held_out:
        is_count = isinstance(size, int | np.integer)
        if not (size >= 1 if is_count else 0 < size < 1):
            raise ValueError(
                f"split: got a part of {size!r}; expected a share from 0 to 1, or a number of rows. Change it"
            )
        first = end
        end += size if is_count else size * n
        sizes.append(int(np.floor(end + 0.5 + 1e-9)) - int(np.floor(first + 0.5 + 1e-9)))
    if sum(sizes) >= n or min(sizes) < 1:
        raise ValueError(
            f"split: got parts of {', '.join(map(str, sizes))} rows of {n}; expected at least one row in "
            "each and one left. Change the sizes, or give more data"
        )
    return sizes


def _shares(left: np.ndarray, size: int) -> np.ndarray:
    """The rows of each stratum, `size` in all: its share of them, rounded by the largest remainders."""
    counts = left * size // left.sum()
    remainders = left * size % left.sum()
    counts[np.argsort(-remainders, kind="stable")[: size - counts.sum()]] += 1
    return counts


def _parts(
    data: Any, sizes: Sequence[float], numbers: Sequence[tuple[int, ...]], seed: int, by: str | None
) -> list[Any]:
    if not isinstance(data, Mapping):
        if by not in (None, "label"):
            raise ValueError(
                f"split: got by={by!r} for the folder {data}; expected 'label' or None. Change it"
            )
        return [Part(Path(data), tuple(sizes), of, seed, by) for of in numbers]
    lengths = {name: len(x) for name, x in data.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(
            f"split: got columns of lengths {lengths}; expected one row for each example. Give such arrays"
        )
    if by is not None and by not in data:
        raise ValueError(
            f"split: got by={by!r}; expected one of the columns {', '.join(data)}. Name one of those"
        )
    strata = None if by is None else np.asarray(data[by])
    if strata is not None and strata.ndim != 1:
        raise ValueError(
            f"split: got by={by!r} of shape {strata.shape}; expected one value a row. Name a column of labels"
        )
    part = part_of(next(iter(lengths.values())), sizes, seed=seed, strata=strata)
    return [{name: np.asarray(x)[np.isin(part, of)] for name, x in data.items()} for of in numbers]
