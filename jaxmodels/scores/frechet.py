"""Fréchet distance of two sets of images, by features of a classifier; on the host.

With features of Inception trained on ImageNet it is known as FID (arXiv:1706.08500). Here the features are
those of the user's own classifier: its distances compare with each other, and with no published FID.
Dimensions: N images, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def frechet(a_NF: np.ndarray, b_NF: np.ndarray) -> float:
    """Squared distance of the normal distributions fitted to two sets (arXiv:1706.08500, equation 6)."""
    (mean_a, cov_a), (mean_b, cov_b) = _moments(a_NF), _moments(b_NF)
    root_a = _root(cov_a)
    # The trace of the root of a b is that of the root of (root a) b (root a), which is symmetric.
    shared = np.sqrt(np.linalg.eigvalsh(root_a @ cov_b @ root_a).clip(0)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * shared)


def score(features: Callable[[np.ndarray], np.ndarray]) -> Callable[[list[Any], list[Any]], dict[str, float]]:
    """For Evaluation.score: the distance of the predicted images from the batches' own.

    features: maps images (NHWC) to features (NF).
    """

    def measure(
        predictions: Sequence[np.ndarray], batches: Sequence[dict[str, np.ndarray]]
    ) -> dict[str, float]:
        generated = np.concatenate([features(x) for x in predictions])
        real = np.concatenate([features(batch["image"]) for batch in batches])
        return {"frechet": frechet(generated, real)}

    return measure


def _moments(x_NF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(x_NF) < 2:
        raise ValueError(
            f"frechet: got {len(x_NF)} images; expected at least 2, and better thousands. Draw more."
        )
    x_NF = np.asarray(x_NF, np.float64)
    return x_NF.mean(0), np.cov(x_NF, rowvar=False).reshape(x_NF.shape[1], -1)


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
