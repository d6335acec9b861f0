"""Probabilities and labels of a classifier as what a report shows: confusions, calibration, ROC, one row for each class.

Dimensions: B examples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

BINS = 15  # of the confidence, as in jaxmodels.scores.classification


class Example(NamedTuple):
    """One example: its number in the evaluation's data, what it is, what it was taken for, with what probability."""

    number: int
    label: str
    said: str
    probability: float  # of what was said
    of_label: float
    shown: bytes | str | None  # its input: a PNG or WAV file, or text


class ClassifierReport(NamedTuple):
    """What a classifier said of an evaluation's examples."""

    classes: list[str]
    accuracy: float
    confusion: np.ndarray  # (K, K): label, then prediction
    confidence: np.ndarray  # of each bin that has examples: mean confidence,
    right: np.ndarray  # accuracy,
    share: np.ndarray  # and the part of all examples
    calibration_error: float
    roc: dict[str, tuple[np.ndarray, np.ndarray, float]]  # class -> false and true positive rates, area
    table: list[dict[str, Any]]  # one row for each class
    examples: dict[
        str, list[Example]
    ]  # "worst", and of each class the "best", by the probability of the label


def judge(
    probability_BK: np.ndarray,
    label_B: np.ndarray,
    classes: list[str],
    chosen: dict[str, list[int]],
    shown: Mapping[int, bytes | str],
    number_B: np.ndarray | None = None,
) -> ClassifierReport:
    """See Seen. chosen: rows of the examples to show; shown: the inputs of those that can be: see Example.

    number_B: the examples' numbers in the evaluation's data, where some of those are not among the rows.
    """
    probability_BK, K = probability_BK.astype(np.float64), len(classes)
    if (unknown := np.isnan(probability_BK).any(1)).any():
        raise ValueError(
            f"got nan for the probabilities of {unknown.sum():,} of {len(label_B):,} examples, the first is example "
            f"{unknown.argmax()}; expected numbers. Report a run whose loss is finite"
        )
    said_B, sure_B = probability_BK.argmax(1), probability_BK.max(1)
    right_B = said_B == label_B
    confusion = np.zeros((K, K), int)
    np.add.at(confusion, (label_B, said_B), 1)
    bin_B = np.minimum((sure_B * BINS).astype(int), BINS - 1)
    count, confidence, right = (np.bincount(bin_B, x, BINS) for x in (np.ones(len(sure_B)), sure_B, right_B))
    full = count > 0
    mixed = [k for k in range(K) if 0 < (label_B == k).mean() < 1]
    roc = {classes[k]: roc_of(probability_BK[:, k], label_B == k) for k in mixed}
    examples = {
        which: [
            Example(
                i if number_B is None else int(number_B[i]),
                classes[label_B[i]],
                classes[said_B[i]],
                float(sure_B[i]),
                float(probability_BK[i, label_B[i]]),
                shown.get(i),
            )
            for i in numbers
        ]
        for which, numbers in chosen.items()
    }
    return ClassifierReport(
        classes,
        float(right_B.mean()),
        confusion,
        confidence[full] / count[full],
        right[full] / count[full],
        count[full] / len(label_B),
        float(np.abs(right - confidence).sum() / len(label_B)),
        roc,
        _table(classes, confusion, roc),
        examples,
    )


def _table(classes: list[str], confusion: np.ndarray, roc: dict[str, Any]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class, and what it is most often taken for; None where nothing is to divide by."""
    rows = []
    for k, name in enumerate(classes):
        true, of_class, taken = int(confusion[k, k]), int(confusion[k].sum()), int(confusion[:, k].sum())
        wrong = confusion[k].copy()
        wrong[k] = 0
        other = int(wrong.argmax())
        rows.append(
            {
                "class": name,
                "examples": of_class,
                "precision": true / taken if taken else None,
                "recall": true / of_class if of_class else None,
                "F1": 2 * true / (taken + of_class) if taken + of_class else None,
                "AUC": roc[name][2] if name in roc else None,
                "taken for": f"{classes[other]} ({wrong[other]:,})" if wrong[other] else "",
            }
        )
    return rows


def roc_of(score_B: np.ndarray, true_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(false positive rates, true positive rates, area under them): a point for each different score."""
    order = np.argsort(-score_B, kind="stable")
    last = np.concatenate([np.diff(score_B[order]) != 0, [True]])
    hits, misses = (np.concatenate([[0], np.cumsum(x)[last]]) for x in (true_B[order], ~true_B[order]))
    x, y = misses / misses[-1], hits / hits[-1]
    return x, y, float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum())
