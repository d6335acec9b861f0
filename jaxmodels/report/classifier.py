"""What a report shows of a classifier: confusion matrix, calibration, ROC curves and a row for each class.

Metrics are scikit-learn's. Dimensions: B examples, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxmodels.scores.classification import Calibration, calibration


class Example(NamedTuple):
    """An example of an evaluation, its label and its prediction."""

    number: int  # its index in the evaluation's data
    label: str
    predicted: str
    probability: float  # of the predicted class
    label_probability: float
    content: bytes | str | None  # the input: a PNG or WAV file, or text; None where it cannot be shown


class RocCurve(NamedTuple):
    """One class against the rest: a point for each different score, and the area under the curve."""

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    area: float


class ClassRow(NamedTuple):
    """Metrics of one class; None where they would divide by 0."""

    name: str
    examples: int
    precision: float | None
    recall: float | None
    f1: float | None
    auc: float | None
    confused_with: str  # the class that is most often predicted in its place, with how often; "" for none


class ClassifierReport(NamedTuple):
    """The predictions for an evaluation's examples, summed up."""

    classes: list[str]
    accuracy: float
    confusion: np.ndarray  # (K, K) counts: label, then prediction
    calibration: Calibration
    roc: dict[str, RocCurve]  # by class; without those that all examples belong to, or none
    table: list[ClassRow]
    examples: dict[str, list[Example]]  # "worst", and of each class the "best", by the label's probability


def classifier_report(
    probability_BK: np.ndarray,
    label_B: np.ndarray,
    classes: list[str],
    selected: dict[str, list[int]],
    contents: Mapping[int, bytes | str],
    index_B: np.ndarray | None = None,
) -> ClassifierReport:
    """The report of these predictions.

    selected: rows of the examples to show, by title. contents: their inputs as files or text, by row.
    index_B: the examples' indices in the evaluation's data, where some of those are not among the rows.
    """
    try:
        from sklearn import metrics
    except ImportError as error:
        raise ImportError(
            "a report's classification metrics need scikit-learn; pip install 'jaxmodels[report]'"
        ) from error

    probability_BK, K = probability_BK.astype(np.float64), len(classes)
    if (unknown := np.isnan(probability_BK).any(1)).any():
        raise ValueError(
            f"got nan for the probabilities of {unknown.sum():,} of {len(label_B):,} examples, the first is "
            f"example {unknown.argmax()}; expected finite values. Report a run whose loss is finite"
        )
    predicted_B = probability_BK.argmax(1)
    index_B = np.arange(len(label_B)) if index_B is None else index_B
    roc = {}
    for k in range(K):
        if 0 < (label_B == k).mean() < 1:
            x, y, _ = metrics.roc_curve(label_B == k, probability_BK[:, k], drop_intermediate=False)
            roc[classes[k]] = RocCurve(x, y, float(metrics.auc(x, y)))

    def example(row: int) -> Example:
        label, predicted = label_B[row], predicted_B[row]
        probability, of_label = probability_BK[row, predicted], probability_BK[row, label]
        names = classes[label], classes[predicted]
        return Example(int(index_B[row]), *names, float(probability), float(of_label), contents.get(row))

    confusion = metrics.confusion_matrix(label_B, predicted_B, labels=np.arange(K))
    by_class = metrics.precision_recall_fscore_support(
        label_B, predicted_B, labels=np.arange(K), zero_division=np.nan
    )
    return ClassifierReport(
        classes,
        float((predicted_B == label_B).mean()),
        confusion,
        calibration(probability_BK, label_B),
        roc,
        _table(classes, confusion, by_class, roc),
        {title: [example(row) for row in rows] for title, rows in selected.items()},
    )


def _table(
    classes: list[str], confusion: np.ndarray, by_class: tuple[np.ndarray, ...], roc: dict[str, RocCurve]
) -> list[ClassRow]:
    """by_class: precision, recall, F1 and number of examples (K each); nan where they would divide by 0."""
    rows = []
    for k, (name, precision, recall, f1, examples) in enumerate(zip(classes, *by_class, strict=True)):
        wrong = confusion[k].copy()
        wrong[k] = 0
        other = int(wrong.argmax())
        confused_with = f"{classes[other]} ({wrong[other]:,})" if wrong[other] else ""
        auc = roc[name].area if name in roc else None
        rows.append(
            ClassRow(name, int(examples), _known(precision), _known(recall), _known(f1), auc, confused_with)
        )
    return rows


def _known(x: float) -> float | None:
    return None if math.isnan(x) else float(x)
