"""Scores of a classifier that are no means, from the probabilities of all examples; on the host, by scikit-learn.

Dimensions: B examples, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

BINS = 15  # of equal width, as in arXiv:1706.04599


def scores(predictions: Sequence[np.ndarray], batches: Sequence[dict[str, Any]]) -> dict[str, float]:
    """macro_f1, auc (mean over the classes, each against the rest) and calibration_error; for Evaluation.score.

    A class that no example has counts in neither of the first two. predictions: probabilities (BK) of each
    batch, whose labels are under "label". An example whose "weight" is 0 counts nowhere.
    """
    metrics = _sklearn()
    probability_BK, label_B = _joined(predictions, batches)
    there = np.unique(label_B)
    best_B = probability_BK.argmax(-1)
    aucs = (
        [metrics.roc_auc_score(label_B == k, probability_BK[:, k]) for k in there]
        if len(there) > 1
        else [np.nan]
    )
    return {
        "macro_f1": float(metrics.f1_score(label_B, best_B, labels=there, average="macro", zero_division=0)),
        "auc": float(np.mean(aucs)),
        "calibration_error": calibration_error(probability_BK, label_B),
    }


def confusion(predictions: Sequence[np.ndarray], batches: Sequence[dict[str, Any]]) -> np.ndarray:
    """(K, K) int: how many examples of each class (row) were taken for each (column)."""
    probability_BK, label_B = _joined(predictions, batches)
    return _sklearn().confusion_matrix(
        label_B, probability_BK.argmax(-1), labels=np.arange(probability_BK.shape[-1])
    )


class Calibration(NamedTuple):
    """Accuracy by confidence, of the bins of the confidence that hold examples (arXiv:1706.04599, figure 1)."""

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
    probability_BK = np.concatenate(predictions).astype(np.float64)
    label_B = np.concatenate([batch["label"] for batch in batches])
    counts_B = np.concatenate(
        [np.asarray(batch.get("weight", np.ones(len(batch["label"])))) > 0 for batch in batches]
    )
    probability_BK, label_B = probability_BK[counts_B], label_B[counts_B]
    if (unknown := np.isnan(probability_BK).any(-1)).any():
        raise ValueError(
            f"scores: got nan for the probabilities of {unknown.sum():,} of {len(label_B):,} examples, the first in row "
            f"{unknown.argmax()}; expected numbers. Evaluate a model whose loss is finite"
        )
    return probability_BK, label_B


def _sklearn() -> Any:
    try:
        from sklearn import metrics
    except ImportError as error:
        raise ImportError("these scores need scikit-learn; pip install 'jaxmodels[data]'") from error
    return metrics
