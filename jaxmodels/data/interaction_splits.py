"""Splits of interactions in which no later action is trained on, and sequences of a user's actions.

Dimensions: N interactions, U users, T actions of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxmodels.data.interactions import History, Interactions


class Splits(NamedTuple):
    """Disjoint parts of the interactions, whose users and items have the same indices in all."""

    train: Interactions
    validation: Interactions
    test: Interactions


def split_by_time(data: Interactions, *, validation: float, test: float) -> Splits:
    """The newest share `test` of all interactions, the share before them, and the rest.

    Actions of one time stay together, in the earlier part, so every time of a part is after all of those
    before it.
    """
    if data.time_N is None:
        raise ValueError(
            "split_by_time: got interactions without times; expected the time of each. Give time="
        )
    if not (0 < test < 1 and 0 < validation < 1 and test + validation < 1):
        raise ValueError(
            f"split_by_time: got validation={validation} and test={test}; expected shares from 0 to 1 whose "
            "sum is below 1. Change them"
        )
    n = len(data.time_N)
    first, second = (round(n * share) for share in (1 - validation - test, 1 - test))
    ends = [
        int(np.searchsorted(data.time_N, data.time_N[max(0, end - 1)], side="right"))
        for end in (first, second)
    ]
    rows = np.arange(n)
    parts = Splits(
        data.at(rows < ends[0]), data.at((rows >= ends[0]) & (rows < ends[1])), data.at(rows >= ends[1])
    )
    for name, part in parts._asdict().items():
        if not len(part.user_N):
            raise ValueError(
                f"split_by_time: got no {name} interactions of {n:,}, as actions of one time stay together; "
                "expected one or more. Give times of finer units, or larger shares"
            )
    return parts


def leave_one_out(data: Interactions) -> Splits:
    """Each user's last action is tested, the one before validates, and the earlier ones train.

    A user with fewer than three actions is trained on alone. Of equal times the later row is the later
    action.
    """
    order = np.argsort(data.user_N, kind="stable")
    counts_U = np.bincount(data.user_N, minlength=len(data.users))
    ends_U = np.cumsum(counts_U)
    last_U = ends_U[counts_U >= 3] - 1
    part_N = np.zeros(len(order), np.int8)
    part_N[order[last_U]], part_N[order[last_U - 1]] = 2, 1
    return Splits(*(data.at(part_N == part) for part in range(3)))


def next_items(past: History, length: int) -> dict[str, np.ndarray]:
    """Training windows: each user's newest actions but the last, and after each the one that followed.

    "inputs" and "targets" (U' x T, int32; an item's index + 1, 0 before a user's first action) and "weight"
    (U' x T, float32, 0 there). Users with one action or none have no row.
    """
    (users,) = np.nonzero(np.diff(past.start_U) > 1)
    items_UT = padded(past, users, length + 1)
    targets_UT = np.where(items_UT[:, :-1] > 0, items_UT[:, 1:], 0)
    return {
        "inputs": items_UT[:, :-1].copy(),
        "targets": targets_UT,
        "weight": (targets_UT > 0).astype(np.float32),
    }


def as_documents(past: History, length: int) -> dict[str, np.ndarray]:
    """Each user's newest actions as "tokens" and "offsets", for PackedPipeline with rows of `length`.

    The tokens are those of next_items: an item's index + 1. Packed, a row holds several users' actions, with
    hardly any padding.
    """
    counts_U = np.minimum(np.diff(past.start_U), length + 1)
    offsets = np.concatenate([[0], np.cumsum(counts_U)])
    first_U = past.start_U[1:] - counts_U
    position_N = np.arange(offsets[-1]) + np.repeat(first_U - offsets[:-1], counts_U)
    return {"tokens": (past.item_N[position_N] + 1).astype(np.int32), "offsets": offsets}


def last_items(past: History, then: Interactions, length: int) -> dict[str, np.ndarray]:
    """Windows to evaluate: each user's newest actions, and the one action of `then` that followed.

    As next_items, with weight at the last position alone, and "user" (int32). A user whose past is empty has
    no row.
    """
    known = np.diff(past.start_U)[then.user_N] > 0
    user_B, item_B = then.user_N[known], then.item_N[known]
    if len(np.unique(user_B)) != len(user_B):
        raise ValueError(
            "last_items: got users with several actions; expected one of each. See leave_one_out"
        )
    inputs_BT = padded(past, user_B, length)
    targets_BT = np.zeros_like(inputs_BT)
    targets_BT[:, -1] = item_B + 1
    return {
        "inputs": inputs_BT,
        "targets": targets_BT,
        "weight": (targets_BT > 0).astype(np.float32),
        "user": user_B,
    }


def padded(past: History, users: np.ndarray, length: int) -> np.ndarray:
    """The newest actions of some users, newest last: an item's index + 1, 0 before the first; int32."""
    position_BT = past.start_U[users + 1][:, None] + np.arange(-length, 0)
    real_BT = position_BT >= past.start_U[users][:, None]
    return np.where(real_BT, past.item_N[np.maximum(position_BT, 0)] + 1, 0).astype(np.int32)


def joined(*parts: Interactions) -> Interactions:
    """Parts of one split as one, in the order of time within each user: train, then validation."""

    def column(columns: Sequence[np.ndarray | None]) -> np.ndarray | None:
        present = [x for x in columns if x is not None]
        return np.concatenate(present) if len(present) == len(columns) else None

    columns = zip(*(part[:4] for part in parts), strict=True)
    user_N, item_N, rating_N, time_N = map(column, columns)
    assert user_N is not None and item_N is not None
    return Interactions(user_N, item_N, rating_N, time_N, parts[0].users, parts[0].items)
