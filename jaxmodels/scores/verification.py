"""Verification: are two things the same? Measures of similarity scores, on the host.

For the area under the ROC curve of such scores see classification.auc.
Dimensions: N pairs, B examples, D width of an embedding.
"""

from __future__ import annotations

import numpy as np

from jaxmodels.scores.classification import roc_curve


def equal_error_rate(score_N: np.ndarray, same_N: np.ndarray) -> float:
    """The error rate at which different pairs are accepted as often as same pairs are refused.

    Between two points of the ROC curve by linear interpolation.
    """
    curve = roc_curve(score_N, same_N)
    gap = curve.false_positive - (1 - curve.true_positive)  # rises from -1 to 1
    i = int(np.argmax(gap >= 0))
    part = -gap[i - 1] / (gap[i] - gap[i - 1])
    return float(curve.false_positive[i - 1] + part * (curve.false_positive[i] - curve.false_positive[i - 1]))


def best_threshold(score_N: np.ndarray, same_N: np.ndarray) -> float:
    """The threshold of greatest accuracy, where a pair that scores at least it counts as the same.

    For use on other pairs: it lies in the middle between two scores.
    """
    curve, same = roc_curve(score_N, same_N), np.asarray(same_N, bool).sum()
    right = curve.true_positive * same + (1 - curve.false_positive) * (len(same_N) - same)
    i = int(right.argmax())
    low = curve.threshold[i + 1] if i + 1 < len(curve.threshold) else curve.threshold[i] - 1.0
    return float(curve.threshold[i] if np.isinf(curve.threshold[i]) else (curve.threshold[i] + low) / 2)


def accuracy(score_N: np.ndarray, same_N: np.ndarray, threshold: float) -> float:
    """The part of the pairs that this threshold classifies rightly; choose it on other pairs."""
    return float(((_finite(score_N) >= threshold) == np.asarray(same_N, bool)).mean())


def pairs(x_BD: np.ndarray, label_B: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(scores, whether the labels are the same) of `count` pairs of embeddings of length 1.

    Half of the pairs are of one label, half of two. The seed alone chooses them.
    """
    random = np.random.default_rng(seed)
    label_B = np.asarray(label_B)
    by_label = [np.flatnonzero(label_B == k) for k in np.unique(label_B)]
    several = [rows for rows in by_label if len(rows) > 1]
    if len(by_label) < 2 or not several:
        raise ValueError(
            f"pairs: got {len(by_label)} labels, {len(several)} of them with several examples; expected two "
            "labels or more, and one with several examples. Give more examples."
        )
    chosen = []
    for i in range(count):
        if i % 2:
            chosen.append(random.choice(several[random.integers(len(several))], 2, replace=False))
        else:
            a, b = random.choice(len(by_label), 2, replace=False)
            chosen.append(np.array([random.choice(by_label[a]), random.choice(by_label[b])]))
    first, second = np.array(chosen).T
    return (x_BD[first] * x_BD[second]).sum(-1), label_B[first] == label_B[second]


def one_shot_error(train_ND: np.ndarray, test_BD: np.ndarray, answer_B: np.ndarray) -> float:
    """The part of the test examples whose nearest training example is of another class.

    There is one training example for each class; answer_B holds the right one's row.
    """
    return float((_finite(test_BD @ train_ND.T).argmax(-1) != answer_B).mean())


def _finite(scores: np.ndarray) -> np.ndarray:
    """Scores in float64; a NaN would be refused by every threshold, and first by argmax."""
    scores = np.asarray(scores, np.float64)
    if np.isnan(scores).any():
        first = int(np.argwhere(np.isnan(scores))[0][0])
        raise ValueError(
            f"verification: got nan as {np.isnan(scores).sum():,} of {scores.size:,} scores, the first in "
            f"row {first}; expected numbers. Take embeddings of a model whose loss is finite."
        )
    return scores
