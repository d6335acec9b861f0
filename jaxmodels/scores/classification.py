"""Scores of a classifier that are no means over examples; on the host, by scikit-learn.

Dimensions: B examples, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

BINS = 15  # of equal width, as in arXiv:1706.04599


class ROC(NamedTuple):
    """The rates at each threshold, from one above all scores downwards."""

    threshold: np.ndarray
    false_positive: np.ndarray  # the part of the negatives that score at least the threshold
    true_positive: np.ndarray  # the part of the positives


def roc_curve(score_B: np.ndarray, positive_B: np.ndarray) -> ROC:
    """The receiver operating characteristic: a point for each score that occurs, and (0, 0) before them."""
    score_B, positive_B = _checked("roc_curve", score_B, positive_B)
    curve = _sklearn("ROC curves").roc_curve(positive_B, score_B, drop_intermediate=False)
    false_positive, true_positive, threshold = curve
    return ROC(threshold, false_positive, true_positive)


def auc(score_B: np.ndarray, positive_B: np.ndarray) -> float:
    """Area under the ROC curve: the probability that a positive scores above a negative; ties count half."""
    score_B, positive_B = _checked("auc", score_B, positive_B)
    return float(_sklearn("the area under a ROC curve").roc_auc_score(positive_B, score_B))


def scores(predictions: Sequence[np.ndarray], batches: Sequence[dict[str, Any]]) -> dict[str, float]:
    """macro_f1, auc (mean over classes, each against the rest) and calibration_error, for Evaluation.score.

    A class without examples does not count in the first two. predictions: probabilities (BK) of each batch;
    the batches hold the labels under "label". An example whose "weight" is 0 counts nowhere.
    """
    metrics = _sklearn("these scores")
    probability_BK, label_B = _joined(predictions, batches)
    classes = np.unique(label_B)
    prediction_B = probability_BK.argmax(-1)
    aucs = [auc(probability_BK[:, k], label_B == k) for k in classes] if len(classes) > 1 else [np.nan]
    f1 = metrics.f1_score(label_B, prediction_B, labels=classes, average="macro", zero_division=0)
    return {
        "macro_f1": float(f1),
        "auc": float(np.mean(aucs)),
        "calibration_error": calibration_error(probability_BK, label_B),
    }


def confusion(predictions: Sequence[np.ndarray], batches: Sequence[dict[str, Any]]) -> np.ndarray:
    """(K, K) int: the number of examples of each class (row) that were predicted as each class (column)."""
    probability_BK, label_B = _joined(predictions, batches)
    classes = np.arange(probability_BK.shape[-1])
    metrics = _sklearn("a confusion matrix")
    return metrics.confusion_matrix(label_B, probability_BK.argmax(-1), labels=classes)


class Calibration(NamedTuple):
    """Accuracy by confidence, of the bins of the confidence with examples (arXiv:1706.04599, figure 1)."""

    confidence: np.ndarray  # mean of each bin
    accuracy: np.ndarray
    share: np.ndarray  # of all examples
    error: float  # expected calibration error: |accuracy - confidence|, weighted by share (equation 3)


def calibration(probability_BK: np.ndarray, label_B: np.ndarray) -> Calibration:
    """The reliability diagram of a classifier, in BINS bins of equal width."""
    confidence_B = probability_BK.max(-1)
    correct_B = probability_BK.argmax(-1) == label_B
    bin_B = np.minimum((confidence_B * BINS).astype(int), BINS - 1)
    count = np.bincount(bin_B, minlength=BINS)
    confidence, correct = np.bincount(bin_B, confidence_B, BINS), np.bincount(bin_B, correct_B, BINS)
    full = count > 0
    return Calibration(
        confidence[full] / count[full],
        correct[full] / count[full],
        count[full] / len(label_B),
        float(np.abs(correct - confidence).sum() / len(label_B)),
    )


def calibration_error(probability_BK: np.ndarray, label_B: np.ndarray) -> float:
    """Expected calibration error (arXiv:1706.04599, equation 3)."""
    return calibration(probability_BK, label_B).error


def _joined(
    predictions: Sequence[np.ndarray], batches: Sequence[dict[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities, labels) of the examples whose weight is above 0."""
    probability_BK = np.concatenate(predictions).astype(np.float64)
    label_B = np.concatenate([batch["label"] for batch in batches])
    weights = [np.asarray(batch.get("weight", np.ones(len(batch["label"])))) for batch in batches]
    counts_B = np.concatenate(weights) > 0
    probability_BK, label_B = probability_BK[counts_B], label_B[counts_B]
    if (unknown_B := np.isnan(probability_BK).any(-1)).any():
        raise ValueError(
            f"scores: got nan for the probabilities of {unknown_B.sum():,} of {len(label_B):,} examples, the "
            f"first in row {unknown_B.argmax()}; expected numbers. Evaluate a model whose loss is finite."
        )
    return probability_BK, label_B


def _checked(caller: str, score_B: Any, positive_B: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scores in float64 without NaN, which sorting would put above or below all others, and both kinds."""
    score_B, positive_B = np.asarray(score_B, np.float64), np.asarray(positive_B, bool)
    if (unknown_B := np.isnan(score_B)).any():
        raise ValueError(
            f"{caller}: got nan as {unknown_B.sum():,} of {len(score_B):,} scores, the first in row "
            f"{unknown_B.argmax()}; expected numbers. Evaluate a model whose loss is finite."
        )
    if positive_B.all() or not positive_B.any():
        raise ValueError(
            f"{caller}: got {positive_B.sum():,} positives of {len(positive_B):,} examples; expected some of "
            "both kinds. Give other examples."
        )
    return score_B, positive_B


def _sklearn(purpose: str) -> Any:
    try:
        from sklearn import metrics
    except ImportError as error:
        raise ImportError(
            f"got no scikit-learn; expected it for {purpose}. Do pip install 'jaxmodels[data]'"
        ) from error
    return metrics
