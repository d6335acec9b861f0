"""Scores of recommendations, on the host; ties count as their expectation over all orders.

Of a ranking with one relevant item, what matters is how many items score higher than it, and how many as
high, itself included. These are over the whole catalogue without what the user has seen, or, where a
published table did so, among a few sampled items: the two do not compare (Krichene and Rendle, 2020), so
names of the latter begin with "sampled".
Dimensions: B users, V items, K recommended items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rmse(prediction_B: np.ndarray, rating_B: np.ndarray) -> float:
    """Root mean squared error of ratings."""
    return float(np.sqrt(np.mean(_errors(prediction_B, rating_B) ** 2)))


def mae(prediction_B: np.ndarray, rating_B: np.ndarray) -> float:
    """Mean absolute error of ratings."""
    return float(np.mean(np.abs(_errors(prediction_B, rating_B))))


def one_relevant(
    higher_B: np.ndarray, equal_B: np.ndarray, *, k: int = 10, prefix: str = ""
) -> dict[str, float]:
    """Hit rate and NDCG at k, and mean reciprocal rank, where each user has one relevant item.

    higher_B: items that score higher than it. equal_B: items that score as high, itself included.
    """
    higher_B, equal_B = np.asarray(higher_B, np.int64), np.asarray(equal_B, np.int64)
    if not len(higher_B) or higher_B.shape != equal_B.shape or higher_B.min() < 0 or equal_B.min() < 1:
        raise ValueError(
            f"one_relevant: got {higher_B.shape} and {equal_B.shape} counts; expected as many of both, at "
            "least 0 higher and 1 equal for each user. See jaxmodels.tasks.ranking.placed"
        )
    most = int((higher_B + equal_B).max())

    def expected(gain_V: np.ndarray) -> float:
        """The mean over users of the mean gain over the positions that the item may have."""
        sums = np.concatenate([[0.0], np.cumsum(gain_V)])
        return float(np.mean((sums[higher_B + equal_B] - sums[higher_B]) / equal_B))

    position = np.arange(most)
    return {
        f"{prefix}hr@{k}": expected((position < k) * 1.0),
        f"{prefix}ndcg@{k}": expected((position < k) / np.log2(position + 2)),
        f"{prefix}mrr": expected(1 / (position + 1)),
    }


def several_relevant(
    score_BV: np.ndarray, relevant_BV: np.ndarray, *, k: int = 10, candidate_BV: np.ndarray | None = None
) -> dict[str, float]:
    """Hit rate, recall, NDCG and mean average precision at k, and mean reciprocal rank of the first hit.

    Recall divides by the number of relevant items, average precision by the smaller of it and k. relevant_BV:
    bool. candidate_BV: the items that may be recommended, by default all; a relevant one that may not is not
    found. Users without a relevant item do not count.
    """
    score_BV = np.asarray(score_BV, np.float64)
    relevant_BV = np.asarray(relevant_BV, bool)
    if np.isnan(score_BV).any() or score_BV.shape != relevant_BV.shape or not relevant_BV.any():
        raise ValueError(
            f"several_relevant: got scores of shape {score_BV.shape} for {relevant_BV.shape} items, "
            f"{int(np.isnan(score_BV).sum())} of them nan, and {int(relevant_BV.sum())} relevant ones; "
            "expected a number for each item and one or more relevant. Correct them"
        )
    rows = []
    for b in np.flatnonzero(relevant_BV.any(1)):
        kept = slice(None) if candidate_BV is None else np.asarray(candidate_BV[b], bool)
        rows.append(_of_user(score_BV[b][kept], relevant_BV[b][kept], int(relevant_BV[b].sum()), k))
    names = (f"hr@{k}", f"recall@{k}", f"ndcg@{k}", f"map@{k}", "mrr")
    return dict(zip(names, np.mean(rows, 0).tolist(), strict=True))


def _of_user(score_V: np.ndarray, relevant_V: np.ndarray, total: int, k: int) -> tuple[float, ...]:
    """(hit, recall, ndcg, average precision, reciprocal rank), each its expectation over orders of ties."""
    values, group_V = np.unique(-score_V, return_inverse=True)
    size_G = np.bincount(group_V, minlength=len(values))
    hits_G = np.bincount(group_V, relevant_V, minlength=len(values))
    end_V = np.cumsum(size_G)
    position = np.arange(len(score_V))
    group = np.searchsorted(end_V, position, side="right")  # of each position
    inside = position - (end_V - size_G)[group]
    size, hits = size_G[group], hits_G[group]
    before = (np.cumsum(hits_G) - hits_G)[group]
    chance = hits / size  # that the item at a position is relevant
    # Given that it is, the hits up to here: those of higher groups, of its own group before it, and itself.
    up_to = before + 1 + inside * (hits - 1) / np.maximum(size - 1, 1)
    top = position < k
    ideal = (1 / np.log2(np.arange(min(total, k)) + 2)).sum()
    first = _first_hit(size, hits, inside, before)
    return (
        float((first * top).sum()),
        float((chance * top).sum() / total),
        float((chance * top / np.log2(position + 2)).sum() / ideal),
        float((chance * up_to / (position + 1) * top).sum() / min(total, k)),
        float((first / (position + 1)).sum()),
    )


def _first_hit(size: np.ndarray, hits: np.ndarray, inside: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The probability that the first relevant item is at each position.

    In a group of n items with h hits, none of the first i is one with probability C(n - i, h) / C(n, h).
    """
    from scipy.special import gammaln

    def none(i: np.ndarray) -> np.ndarray:
        left = size - i
        with np.errstate(invalid="ignore"):
            logs = gammaln(left + 1) - gammaln(left - hits + 1) - gammaln(size + 1) + gammaln(size - hits + 1)
        return np.where(left >= hits, np.exp(logs), 0.0)

    return np.where(before == 0, none(inside) - none(inside + 1), 0.0)


def coverage(recommended_BK: np.ndarray, items: int) -> float:
    """The part of all items that is recommended to some user."""
    return len(np.unique(recommended_BK)) / items


def mean_popularity(recommended_BK: np.ndarray, count_V: np.ndarray) -> float:
    """The mean number of training interactions of the items that are recommended."""
    return float(np.asarray(count_V)[np.asarray(recommended_BK)].mean())


def _errors(prediction_B: np.ndarray, rating_B: np.ndarray) -> np.ndarray:
    prediction_B, rating_B = np.asarray(prediction_B, np.float64), np.asarray(rating_B, np.float64)
    if prediction_B.shape != rating_B.shape or not len(rating_B):
        raise ValueError(
            f"ratings: got {prediction_B.shape} predictions of {rating_B.shape}; expected one for each. Give "
            "arrays of one length"
        )
    return prediction_B - rating_B


def concatenated(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Batches of predictions, as Evaluation.score gets them, as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
