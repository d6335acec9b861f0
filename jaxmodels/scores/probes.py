"""How well features that were learned without labels predict the labels; on the host.

Dimensions: N examples, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

NEIGHBOURS, TEMPERATURE = 20, 0.07  # as in arXiv:2104.14294, section 4.1
STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # inverses of the probe's regularisation
CHUNK = 500  # test examples that are compared at once


def score(predictions: Sequence[np.ndarray], batches: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
    """ "probe" and "neighbours": two test accuracies, for Evaluation.score over features.

    The batches hold "label" and "known": 1 for an example to learn from, 0 for one to test.
    """
    x_NF = np.concatenate(predictions).astype(np.float64)
    if not np.isfinite(x_NF).all():
        raise ValueError(
            "probes: got features that are not finite, the first in row "
            f"{(~np.isfinite(x_NF)).any(-1).argmax()}; expected numbers. Evaluate an encoder whose loss is "
            "finite."
        )
    label_N, known_N = (np.concatenate([batch[name] for batch in batches]) for name in ("label", "known"))
    known_N = known_N > 0
    parts = x_NF[known_N], label_N[known_N], x_NF[~known_N], label_N[~known_N]
    return {"probe": linear_probe(*parts), "neighbours": nearest_neighbours(*parts)}


def linear_probe(train_NF: np.ndarray, train_N: np.ndarray, test_NF: np.ndarray, test_N: np.ndarray) -> float:
    """Test accuracy of multinomial logistic regression on standardised features, by scikit-learn.

    Of four strengths of regularisation, the one that does best on the last fifth of the training examples is
    taken, and fitted to all of them.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError(
            "got no scikit-learn; expected it for a linear probe. Do pip install 'jaxmodels[data]'"
        ) from error
    mean, deviation = train_NF.mean(0), train_NF.std(0) + 1e-6
    train_NF, test_NF = (train_NF - mean) / deviation, (test_NF - mean) / deviation

    def fitted(strength: float, rows: slice) -> Any:
        return LogisticRegression(C=strength, max_iter=2_000, tol=1e-3).fit(train_NF[rows], train_N[rows])

    split = len(train_N) * 4 // 5
    accuracies = [fitted(c, slice(split)).score(train_NF[split:], train_N[split:]) for c in STRENGTHS]
    best = STRENGTHS[int(np.argmax(accuracies))]
    return float(fitted(best, slice(None)).score(test_NF, test_N))


def nearest_neighbours(
    train_NF: np.ndarray, train_N: np.ndarray, test_NF: np.ndarray, test_N: np.ndarray
) -> float:
    """Test accuracy of a vote of the nearest by cosine, weighted by exp(cosine / TEMPERATURE).

    Source: arXiv:1805.01978, section 3.4.
    """

    def normalised(x_NF: np.ndarray) -> np.ndarray:
        return x_NF / np.maximum(np.linalg.norm(x_NF, axis=1, keepdims=True), 1e-9)

    train_NF, test_NF = normalised(train_NF), normalised(test_NF)
    right, k = 0, min(NEIGHBOURS, len(train_N))
    for start in range(0, len(test_N), CHUNK):
        cosine = test_NF[start : start + CHUNK] @ train_NF.T
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        votes = np.zeros((len(cosine), int(train_N.max()) + 1))
        weight = np.exp(np.take_along_axis(cosine, nearest, 1) / TEMPERATURE)
        np.add.at(votes, (np.arange(len(cosine))[:, None], train_N[nearest]), weight)
        right += int((votes.argmax(1) == test_N[start : start + CHUNK]).sum())
    return right / len(test_N)


def nearest_vote(
    train_NF: np.ndarray, train_N: np.ndarray, test_NF: np.ndarray, test_N: np.ndarray, *, neighbors: int = 10
) -> float:
    """Test accuracy of a plain vote of the nearest by Euclidean distance; the smallest class wins a tie."""
    square_N, k, right = (train_NF**2).sum(1), min(neighbors, len(train_N)), 0
    for start in range(0, len(test_N), CHUNK):
        distance = square_N - 2 * test_NF[start : start + CHUNK] @ train_NF.T
        nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
        votes = np.zeros((len(distance), int(train_N.max()) + 1))
        np.add.at(votes, (np.arange(len(distance))[:, None], train_N[nearest]), 1)
        right += int((votes.argmax(1) == test_N[start : start + CHUNK]).sum())
    return right / len(test_N)
