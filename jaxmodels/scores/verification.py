"""Are two things the same? Measures of similarity scores, on the host.

Dimensions: N pairs, B examples, D width of an embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class ROC(NamedTuple):
    """At each threshold, falling from above all scores: which part of the different and of the same pairs is accepted."""

    threshold: np.ndarray
    false_accepted: np.ndarray
    true_accepted: np.ndarray


def roc(score_N: np.ndarray, same_N: np.ndarray) -> ROC:
    """The receiver operating characteristic: one point for each score that occurs, and (0, 0)."""
    score_N, same_N = _numbers(score_N), np.asarray(same_N, bool)
    if not same_N.any() or same_N.all():
        raise ValueError(
            f"roc: came {same_N.sum()} same pairs of {len(same_N)}; wanted some of both kinds: give other pairs"
        )
    order = np.argsort(-score_N, kind="stable")
    sorted_N, hit_N = score_N[order], same_N[order]
    last_N = np.append(np.diff(sorted_N) != 0, True)  # equal scores are accepted together
    true = np.cumsum(hit_N)[last_N] / hit_N.sum()
    false = np.cumsum(~hit_N)[last_N] / (~hit_N).sum()
    return ROC(np.append(np.inf, sorted_N[last_N]), np.append(0.0, false), np.append(0.0, true))


def auc(score_N: np.ndarray, same_N: np.ndarray) -> float:
    """Area under the ROC: how probably a same pair scores above a different one, ties counted half."""
    curve = roc(score_N, same_N)
    return float(np.trapezoid(curve.true_accepted, curve.false_accepted))


def equal_error_rate(score_N: np.ndarray, same_N: np.ndarray) -> float:
    """Where as great a part of the different pairs is accepted as of the same pairs is not, between points linearly."""
    curve = roc(score_N, same_N)
    gap = curve.false_accepted - (1 - curve.true_accepted)  # rises from -1 to 1
    i = int(np.argmax(gap >= 0))
    part = -gap[i - 1] / (gap[i] - gap[i - 1])
    return float(curve.false_accepted[i - 1] + part * (curve.false_accepted[i] - curve.false_accepted[i - 1]))


def best_threshold(score_N: np.ndarray, same_N: np.ndarray) -> float:
    """The score from which on pairs are taken for the same, so that the accuracy is greatest; for use on other pairs."""
    curve, same = roc(score_N, same_N), np.asarray(same_N, bool).sum()
    right = curve.true_accepted * same + (1 - curve.false_accepted) * (len(same_N) - same)
    i = int(right.argmax())
    low = curve.threshold[i + 1] if i + 1 < len(curve.threshold) else curve.threshold[i] - 1.0
    return float(curve.threshold[i] if np.isinf(curve.threshold[i]) else (curve.threshold[i] + low) / 2)


def accuracy(score_N: np.ndarray, same_N: np.ndarray, threshold: float) -> float:
    """Part of the pairs that are told right by this threshold, chosen elsewhere."""
    return float(((_numbers(score_N) >= threshold) == np.asarray(same_N, bool)).mean())


def pairs(x_BD: np.ndarray, label_B: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(scores, whether the same) of `count` pairs of embeddings of length 1, half of either kind, always the same ones."""
    random = np.random.default_rng(seed)
    label_B = np.asarray(label_B)
    by_label = [np.flatnonzero(label_B == k) for k in np.unique(label_B)]
    several = [rows for rows in by_label if len(rows) > 1]
    if len(by_label) < 2 or not several:
        raise ValueError(
            "pairs: came no two examples of one label, or no two labels; wanted both: give more examples"
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
    """Part of the test examples whose nearest training example, of one for each class, is not that of their class."""
    return float((_numbers(test_BD @ train_ND.T).argmax(-1) != answer_B).mean())


def _numbers(scores: np.ndarray) -> np.ndarray:
    """Scores in float64; a NaN would stand above or below all others, as the sorting has it."""
    scores = np.asarray(scores, np.float64)
    if np.isnan(scores).any():
        first = int(np.argwhere(np.isnan(scores))[0][0])
        raise ValueError(
            f"verification: got nan as {np.isnan(scores).sum():,} of {scores.size:,} scores, the first in row {first}; "
            "expected numbers. Take embeddings of a model whose loss is finite"
        )
    return scores
