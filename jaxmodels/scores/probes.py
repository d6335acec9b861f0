"""How much of the labels is in features that were learned without them; on the host.

Dimensions: N examples, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

PART = 500  # examples that an untrained encoder sees at once

NEIGHBOURS, TEMPERATURE = 20, 0.07  # as in arXiv:2104.14294, section 4.1
STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # inverse of the probe's regularisation


def score(predictions: Sequence[np.ndarray], batches: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
    """ "probe" and "neighbours": both accuracies, for Evaluation.score over features.

    The batches' "known" (1 or 0) says which examples may be learned from, with their "label"; the others are
    tested.
    """
    x_NF = np.concatenate(predictions).astype(np.float64)
    if not np.isfinite(x_NF).all():
        raise ValueError(
            f"representations: got features that are not finite, the first in row {(~np.isfinite(x_NF)).any(-1).argmax()}; "
            "expected numbers. Evaluate an encoder whose loss is finite"
        )
    label_N, known_N = (np.concatenate([batch[name] for batch in batches]) for name in ("label", "known"))
    known_N = known_N > 0
    parts = x_NF[known_N], label_N[known_N], x_NF[~known_N], label_N[~known_N]
    return {"probe": linear_probe(*parts), "neighbours": nearest_neighbours(*parts)}


def untrained(encoder: nn.Module, key: jax.Array, batch: dict[str, np.ndarray]) -> dict[str, float]:
    """The same of an encoder with random parameters from this key, on one batch of all examples, with "image"."""
    image = batch["image"]
    variables = jax.jit(encoder.init)(key, image[:1])
    apply = jax.jit(lambda x: encoder.apply(variables, x))
    features = np.concatenate([apply(part) for part in np.split(image, range(PART, len(image), PART))])
    return score([features], [batch])


def linear_probe(train_NF: np.ndarray, train_N: np.ndarray, test_NF: np.ndarray, test_N: np.ndarray) -> float:
    """Test accuracy of multinomial logistic regression on standardised features, by scikit-learn.

    The regularisation is the best of four on the last fifth of the training examples, which it then learns
    from too.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError("a linear probe needs scikit-learn; pip install 'jaxmodels[data]'") from error
    mean, deviation = train_NF.mean(0), train_NF.std(0) + 1e-6
    train_NF, test_NF = (train_NF - mean) / deviation, (test_NF - mean) / deviation

    def fitted(strength: float, rows: slice) -> Any:
        return LogisticRegression(C=strength, max_iter=2_000, tol=1e-3).fit(train_NF[rows], train_N[rows])

    most = len(train_N) * 4 // 5
    trial = {c: fitted(c, slice(most)).score(train_NF[most:], train_N[most:]) for c in STRENGTHS}
    best = max(trial, key=lambda c: trial[c])
    return float(fitted(best, slice(None)).score(test_NF, test_N))


def nearest_neighbours(
    train_NF: np.ndarray, train_N: np.ndarray, test_NF: np.ndarray, test_N: np.ndarray
) -> float:
    """Test accuracy of a vote of the nearest by cosine, weighed by exp(cosine / temperature) (arXiv:1805.01978)."""
    train_NF, test_NF = (
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in (train_NF, test_NF)
    )
    right, k = 0, min(NEIGHBOURS, len(train_N))
    for start in range(0, len(test_N), 500):
        cosine = test_NF[start : start + 500] @ train_NF.T
        near = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        vote = np.zeros((len(cosine), int(train_N.max()) + 1))
        weight = np.exp(np.take_along_axis(cosine, near, 1) / TEMPERATURE)
        np.add.at(vote, (np.arange(len(cosine))[:, None], train_N[near]), weight)
        right += int((vote.argmax(1) == test_N[start : start + 500]).sum())
    return right / len(test_N)
