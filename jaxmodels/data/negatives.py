"""Items that a user has no interaction with, drawn on the host: to train against, and to rank among.

Dimensions: B rows of a batch, N interactions, n items drawn for each row, S items of the longest history.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from jaxmodels.data.interactions import History
from jaxmodels.data.keyed_random import integers

ROUNDS = 64  # of drawing again what the user has seen


class Unseen:
    """Draws items (indices below `items`) that are not in a user's history, uniformly."""

    def __init__(self, past: History, items: int):
        self.past, self.items = past, items
        counts_U = np.diff(past.start_U)
        self._user_N = np.repeat(np.arange(len(counts_U)), counts_U)

    @cached_property
    def _pairs(self) -> np.ndarray:
        """A number for each pair of a user and an item, sorted."""
        return np.unique(self._user_N * self.items + self.past.item_N)

    def seen(self, user_B: np.ndarray, item_Bn: np.ndarray) -> np.ndarray:
        """Whether each item is in the history of its row's user."""
        if not len(self._pairs):
            return np.zeros(item_Bn.shape, bool)
        pair_Bn = user_B.astype(np.int64)[:, None] * self.items + item_Bn
        at = np.searchsorted(self._pairs, pair_Bn).clip(0, len(self._pairs) - 1)
        return self._pairs[at] == pair_Bn

    def draw(self, keys_B: np.ndarray, user_B: np.ndarray, n: int, besides_B: Any = None) -> np.ndarray:
        """(B, n) int32, a function of the keys (uint64); of a row the same item may come twice.

        besides_B: one more item for each row that is not drawn. Raises ValueError where a user has seen
        nearly all.
        """
        item_Bn = integers(keys_B, 0, self.items, n, salt=31)

        def wrong(item_Bn: np.ndarray) -> np.ndarray:
            bad = self.seen(user_B, item_Bn)
            return bad if besides_B is None else bad | (item_Bn == np.asarray(besides_B)[:, None])

        bad = wrong(item_Bn)
        for i in range(1, ROUNDS):
            rows = np.flatnonzero(bad.any(1))
            if not len(rows):
                return item_Bn.astype(np.int32)
            again = integers(keys_B[rows], 0, self.items, n, salt=31 + i)
            item_Bn[rows] = np.where(bad[rows], again, item_Bn[rows])
            bad = wrong(item_Bn)
        user = int(user_B[np.flatnonzero(bad.any(1))[0]])
        raise ValueError(
            f"negatives: got user {user}, who has {len(np.unique(self.past.of(user))):,} of {self.items:,} "
            "items; expected users with many items left. Leave such users out, or rank among all items"
        )


def with_negatives(
    unseen: Unseen, n: int, *, target: str = "target"
) -> Callable[[dict[str, np.ndarray], np.ndarray], dict[str, np.ndarray]]:
    """For ArrayPipeline's augment: adds "negatives" (B x n, int32), by the row's position in the stream.

    Batches have "user"; the item under `target` is not drawn, in the history or not.
    """

    def change(batch: dict[str, np.ndarray], keys_B: np.ndarray) -> dict[str, np.ndarray]:
        drawn = unseen.draw(keys_B, batch["user"], n, batch.get(target))
        return {**batch, "negatives": drawn}

    return change


def with_seen(past: History) -> Callable[[dict[str, np.ndarray], np.ndarray], dict[str, np.ndarray]]:
    """For ArrayPipeline's augment: adds "seen" (B x S, int32), the items of each "user"; -1 fills up."""
    longest = max(1, int(np.diff(past.start_U).max()))

    def change(batch: dict[str, np.ndarray], keys_B: np.ndarray) -> dict[str, np.ndarray]:
        start_B, end_B = past.start_U[batch["user"]], past.start_U[batch["user"] + 1]
        position_BS = start_B[:, None] + np.arange(longest)
        inside = np.minimum(position_BS, max(0, len(past.item_N) - 1))
        seen_BS = np.where(position_BS < end_B[:, None], past.item_N[inside], -1)
        return {**batch, "seen": seen_BS.astype(np.int32)}

    return change
