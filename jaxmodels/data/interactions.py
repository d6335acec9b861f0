"""Interactions of users with items, such as ratings and views: read from a table, checked, and numbered.

    rows of user, item (, rating) (, time)  ──ids to indices, in order of time──►  Interactions

A run keeps the ids (see data/learned.py), so an index means the same user or item wherever its folder is.
Dimensions: N interactions, U users, V items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxmodels import choices
from jaxmodels.data.formats.tables import PathLike, read_table
from jaxmodels.runs.learned import OtherData, learned, portable_name

Repeated = Literal["refuse", "keep"]


class Interactions(NamedTuple):
    """Interactions in the order of their times, and of the rows where times are equal or there are none."""

    user_N: np.ndarray
    """int32, indices of `users`."""
    item_N: np.ndarray
    """int32, indices of `items`."""
    rating_N: np.ndarray | None
    """float32."""
    time_N: np.ndarray | None
    """int64 or float64, in the unit of the table."""
    users: tuple[str, ...]
    items: tuple[str, ...]

    def at(self, rows: np.ndarray) -> Interactions:
        """Some of the interactions, by indices or a mask; users and items keep their indices."""
        columns = (self.user_N, self.item_N, self.rating_N, self.time_N)
        user_N, item_N, rating_N, time_N = (None if x is None else x[rows] for x in columns)
        assert user_N is not None and item_N is not None
        return Interactions(user_N, item_N, rating_N, time_N, self.users, self.items)


class History(NamedTuple):
    """The items of each user in the order of their times, one user after the other."""

    item_N: np.ndarray
    """int32."""
    start_U: np.ndarray
    """int64, U + 1 values: those of user u are item_N[start[u] : start[u + 1]]."""

    def of(self, user: int) -> np.ndarray:
        """The items of one user, oldest first."""
        return self.item_N[self.start_U[user] : self.start_U[user + 1]]


def read_interactions(
    path: PathLike,
    *,
    user: str = "user",
    item: str = "item",
    rating: str | None = None,
    time: str | None = None,
    repeated: Repeated = "refuse",
) -> Interactions:
    """The interactions of a table, such as a CSV file: see number_interactions, and read_table for formats.

    user, item, rating, time: names of columns; without `time` the order of the rows is the order of time.
    """
    choices.check("interactions", "repeated", repeated, Repeated)
    table = read_table(path)
    names = [name for name in (user, item, rating, time) if name is not None]
    if missing := [name for name in names if name not in table]:
        raise ValueError(
            f"{path}: got the columns {', '.join(table)}; expected one named {missing[0]!r}. Name the "
            "table's own columns by user=, item=, rating= and time="
        )
    return number_interactions(
        table[user],
        table[item],
        rating=None if rating is None else table[rating],
        time=None if time is None else table[time],
        repeated=repeated,
        name=portable_name(path),
    )


def number_interactions(
    user: Sequence[Any] | np.ndarray,
    item: Sequence[Any] | np.ndarray,
    *,
    rating: np.ndarray | None = None,
    time: np.ndarray | None = None,
    repeated: Repeated = "refuse",
    name: str = "interactions",
) -> Interactions:
    """Columns of ids as Interactions, sorted by time; rows may come in any order.

    The ids of users and items are sorted, whole numbers by value, and learned under `name`: a run that is
    opened with other rows refuses users and items that its training did not have.

    repeated: whether a user may have several rows of one item. A rating twice is mostly a fault; views and
        purchases recur.
    """
    choices.check("interactions", "repeated", repeated, Repeated)
    columns = {"user": user, "item": item, "rating": rating, "time": time}
    lengths = {column: len(x) for column, x in columns.items() if x is not None}
    if len({*lengths.values()}) != 1 or not len(user):
        raise ValueError(
            f"{name}: got columns of lengths {lengths}; expected one row or more, in each as many. Correct "
            "them"
        )
    user_N, users = _numbered(name, "user", user)
    item_N, items = _numbered(name, "item", item)
    rating_N = None if rating is None else _finite(name, "rating", rating).astype(np.float32)
    time_N = None if time is None else _finite(name, "time", time)
    data = Interactions(user_N, item_N, rating_N, time_N, users, items)
    if repeated == "refuse":
        _refuse_repeated(name, data)
    return data if time_N is None else data.at(np.argsort(time_N, kind="stable"))


def history(data: Interactions) -> History:
    """The items of each user, in the order of time."""
    order = np.argsort(data.user_N, kind="stable")
    counts_U = np.bincount(data.user_N, minlength=len(data.users))
    return History(data.item_N[order], np.concatenate([[0], np.cumsum(counts_U)]))


def index_of(ids: Sequence[str], wanted: Any, what: str) -> int:
    """The index of a user or an item by id; a ValueError with the nearest ids where there is none."""
    try:
        return ids.index(str(wanted))
    except ValueError:
        import difflib

        close = difflib.get_close_matches(str(wanted), ids, n=3) or list(ids[:3])
        raise ValueError(
            f"got the {what} {str(wanted)!r}; expected one of the {len(ids):,} that the model was trained "
            f"with, such as {', '.join(close)}. Name one of those, or train with that {what}'s interactions"
        ) from None


def _texts(name: str, what: str, ids: Any) -> np.ndarray:
    """Ids as strings."""
    x = np.asarray(ids)
    if x.dtype.kind == "f":
        bad = ~np.isfinite(x) | (x != np.round(x))
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(
                f"{name}: got the {what} {x[row]} in row {row + 1}; expected an id in every row. Drop rows "
                "without one, and write ids as whole numbers or texts"
            )
        x = x.astype(np.int64)
    texts = np.array([text.strip() for text in x.astype(np.dtypes.StringDType()).tolist()])
    empty = texts == ""
    if empty.any():
        raise ValueError(
            f"{name}: got no {what} in row {int(empty.argmax()) + 1}; expected an id in every row. Drop rows "
            "without one"
        )
    return texts


def _numbered(name: str, what: str, ids: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """(indices, the ids that they stand for)."""
    whole = np.asarray(ids).dtype.kind in "iu"
    here, index_N = np.unique(np.asarray(ids) if whole else _texts(name, what, ids), return_inverse=True)
    here = here.astype(str)
    known: tuple[str, ...] = tuple(learned(f"{name}: {what}s", lambda: here.tolist()))
    if known == tuple(here.tolist()):
        return index_N.astype(np.int32), known
    number = {id_: i for i, id_ in enumerate(known)}
    if unknown := [id_ for id_ in here.tolist() if id_ not in number]:
        raise OtherData(
            f"{name}: got the {what} {unknown[0]!r} and {len(unknown) - 1:,} others that the run was not "
            f"trained with; expected some of its {len(known):,} {what}s. Train a new run on this table, or "
            "leave those rows out"
        )
    return np.array([number[id_] for id_ in here.tolist()], np.int32)[index_N], known


def _finite(name: str, what: str, values: Any) -> np.ndarray:
    x = np.asarray(values)
    if x.dtype.kind not in "iuf":
        row, text = next((i, text) for i, text in enumerate(x.tolist()) if not _is_number(text))
        raise ValueError(
            f"{name}: got a {what} of {text!r} in row {row + 1}; expected numbers"
            + (", such as seconds since 1970. Convert dates" if what == "time" else ". Correct the column")
        )
    bad = ~np.isfinite(x)
    if bad.any():
        raise ValueError(
            f"{name}: got no {what} in row {int(bad.argmax()) + 1}; expected a number in every row. Drop "
            "rows without one, or fill it in"
        )
    return x.astype(np.float64) if x.dtype.kind == "f" else x.astype(np.int64)


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


def _refuse_repeated(name: str, data: Interactions) -> None:
    pair_N = data.user_N.astype(np.int64) * len(data.items) + data.item_N
    order = np.argsort(pair_N, kind="stable")
    (again,) = np.nonzero(np.diff(pair_N[order]) == 0)
    if len(again):
        first, second = (int(order[again[0] + i]) for i in (0, 1))
        raise ValueError(
            f"{name}: got user {data.users[data.user_N[first]]} and item {data.items[data.item_N[first]]} in "
            f"rows {first + 1} and {second + 1}, and {len(again) - 1:,} more repetitions; expected each pair "
            'once. Keep one row of each, or give repeated="keep" if actions recur'
        )


def popularity(data: Interactions | History, items: int) -> np.ndarray:
    """The number of interactions of each item (V, int64)."""
    return np.bincount(data.item_N, minlength=items)
