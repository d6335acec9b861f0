"""Friedman's first function: 10 uniform features, five of them relevant (1991, Annals of Statistics 19, 4.3).

y = 10 sin(pi x1 x2) + 20 (x3 - 1/2)^2 + 10 x4 + 5 x5 + noise, for x between 0 and 1; the noise is normal with
standard deviation 1. The features given to a network have mean 0 and variance 1.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from jaxmodels import choices
from jaxmodels.data.pipeline import ArrayPipeline


def friedman_arrays(split: str, n: int = 1_000) -> dict[str, np.ndarray]:
    """features (n, 10) and target (n, 1), float32, of the split "train" or "test"."""
    choices.check("friedman", "split", split, ("train", "test"))
    rng = np.random.default_rng(0 if split == "train" else 1)
    x = rng.random((n, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    features = (x - 0.5) * np.sqrt(12)
    return {
        "features": features.astype(np.float32),
        "target": (y + rng.standard_normal(n)).astype(np.float32)[:, None],
    }


def friedman(split: str, *, batch: int, seed: int | None = None, n: int = 1_000) -> ArrayPipeline:
    """n examples of Friedman's function; training and test examples are drawn independently."""
    return ArrayPipeline(partial(friedman_arrays, split, n), batch=batch, seed=seed)


def friedman_linear_rmse(n: int = 1_000) -> float:
    """Root mean squared test error of ordinary least squares on the training split."""
    train, test = friedman_arrays("train", n), friedman_arrays("test", n)

    def design(arrays: dict[str, np.ndarray]) -> np.ndarray:
        return np.concatenate([arrays["features"], np.ones((n, 1))], 1)

    weights = np.linalg.lstsq(design(train), train["target"], rcond=None)[0]
    return float(np.sqrt(np.mean((design(test) @ weights - test["target"]) ** 2)))
