"""Recommenders to compare with, from counts alone, on the host: popular items, and neighbors of items.

Dimensions: N interactions, U users, V items, B users asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def popular(item_N: np.ndarray, items: int) -> Callable[[np.ndarray], np.ndarray]:
    """Scores of all items (BV) for users: the number of interactions, for everybody the same."""
    count_V = np.bincount(item_N, minlength=items).astype(np.float32)
    return lambda user_B: np.broadcast_to(count_V, (len(user_B), items))


def item_knn(
    user_N: np.ndarray, item_N: np.ndarray, users: int, items: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Scores of all items (BV) for users: the sum of cosines with the items of each (Sarwar et al., 2001).

    An item is the vector of the users who have it, so repetitions count once.
    """
    from scipy import sparse

    x_UV = sparse.csr_matrix((np.ones(len(user_N), np.float32), (user_N, item_N)), (users, items))
    x_UV.data[:] = 1.0
    length_V = np.sqrt(np.asarray(x_UV.sum(0)).reshape(-1))
    unit_UV = x_UV @ sparse.diags(1 / np.maximum(length_V, 1e-12).astype(np.float32))
    cosine_VV = (unit_UV.T @ unit_UV).tocsr()
    cosine_VV.setdiag(0)
    return lambda user_B: (x_UV[user_B] @ cosine_VV).toarray()


def placed(
    score: Callable[[np.ndarray], np.ndarray],
    batch: dict[str, np.ndarray],
    *,
    chunk: int = 256,
) -> dict[str, np.ndarray]:
    """What jaxmodels.tasks.recommend.placed_target gives, of scores on the host.

    batch: "user", "target", "seen" (-1 fills up) and, where items are sampled, "negatives".
    """
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, len(batch["user"]), chunk):
        part = {name: x[start : start + chunk] for name, x in batch.items()}
        parts.append(_placed(np.asarray(score(part["user"])), part))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _placed(score_BV: np.ndarray, batch: dict[str, Any]) -> dict[str, np.ndarray]:
    rows = np.arange(len(score_BV))
    own_B1 = score_BV[rows, batch["target"]][:, None]
    other_BV = np.ones(score_BV.shape, bool)
    at, column = np.nonzero(batch["seen"] >= 0)
    other_BV[at, batch["seen"][at, column]] = False
    other_BV[rows, batch["target"]] = False
    found = {
        "higher": (other_BV & (score_BV > own_B1)).sum(1),
        "equal": (other_BV & (score_BV == own_B1)).sum(1) + 1,
    }
    if "negatives" in batch:
        sampled = np.take_along_axis(score_BV, batch["negatives"], 1)
        found["sampled_higher"] = (sampled > own_B1).sum(1)
        found["sampled_equal"] = (sampled == own_B1).sum(1) + 1
    return found


def mean_of_ratings(rating_N: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Ratings of pairs (user_B, item_B): the mean of all."""
    mean = float(np.mean(rating_N))
    return lambda user_B, item_B: np.full(len(user_B), mean)


def biases(
    user_N: np.ndarray,
    item_N: np.ndarray,
    rating_N: np.ndarray,
    users: int,
    items: int,
    *,
    user_penalty: float = 5.0,
    item_penalty: float = 5.0,
    passes: int = 30,
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Ratings of pairs: mean + bias of the user + bias of the item, by penalised least squares.

    Alternating exact solutions (Koren, Bell and Volinsky, 2009, equations 3 and 4); a penalty counts as so
    many ratings of no deviation.
    """
    mean = float(np.mean(rating_N))
    of_user, of_item = np.zeros(users), np.zeros(items)
    for _ in range(passes):
        of_item = _shrunk(item_N, rating_N - mean - of_user[user_N], items, item_penalty)
        of_user = _shrunk(user_N, rating_N - mean - of_item[item_N], users, user_penalty)
    return lambda user_B, item_B: mean + of_user[user_B] + of_item[item_B]


def rating_knn(
    user_N: np.ndarray,
    item_N: np.ndarray,
    rating_N: np.ndarray,
    users: int,
    items: int,
    *,
    neighbors: int = 40,
    shrink: float = 100.0,
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Ratings of pairs: biases, and the mean deviation of the user's ratings of the most similar items.

    The similarity is the correlation of deviations from the biases, times n / (n + shrink) for n users in
    common, and only where it is positive (Koren, 2010, equations 2 and 3).
    """
    base = biases(user_N, item_N, rating_N, users, items)
    deviation_UV = np.zeros((users, items), np.float32)
    has_UV = np.zeros((users, items), np.float32)
    deviation_UV[user_N, item_N] = rating_N - base(user_N, item_N)
    has_UV[user_N, item_N] = 1

    def predict(user_B: np.ndarray, item_B: np.ndarray) -> np.ndarray:
        out = base(user_B, item_B)
        for item in np.unique(item_B):
            rows = np.flatnonzero(item_B == item)
            own_U = deviation_UV[:, item]
            both = has_UV[:, item] > 0
            other_UV, common_UV = deviation_UV[both], has_UV[both]
            n_V = common_UV.sum(0)
            product_V = own_U[both] @ other_UV
            norm_V = np.sqrt((own_U[both] ** 2 @ common_UV) * (other_UV**2).sum(0))
            similar_V = product_V / np.maximum(norm_V, 1e-9) * n_V / (n_V + shrink)
            similar_V[item] = 0
            for row in rows:
                rated = np.flatnonzero(has_UV[user_B[row]])
                weight = similar_V[rated]
                near = np.argsort(-weight)[:neighbors]
                near = near[weight[near] > 0]
                if len(near):
                    out[row] += weight[near] @ deviation_UV[user_B[row], rated[near]] / weight[near].sum()
        return out

    return predict


def _shrunk(index_N: np.ndarray, value_N: np.ndarray, count: int, penalty: float) -> np.ndarray:
    total = np.bincount(index_N, value_N, minlength=count)
    return total / (np.bincount(index_N, minlength=count) + penalty)
