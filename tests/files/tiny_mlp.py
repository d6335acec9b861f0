"""A 10-10-1 MLP on made-up data: small enough that a run of it takes a second, with everything a run has.

Dimensions: N examples, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxmodels import Experiment, optim
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.regress import regress


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 24
    batch: int = 8
    lr: float = 0.05
    hidden: int = 10
    dropout: float = 0.0
    eval_every: int = 6
    save_every: int = 6
    log_every: int = 4


def arrays(split: str) -> dict[str, np.ndarray]:
    """52 examples to train on and 13 to test, neither a multiple of the batch."""
    random = np.random.default_rng(["train", "test"].index(split))
    features_NF = random.normal(size=(52 if split == "train" else 13, 10)).astype(np.float32)
    return {"features": features_NF, "target": np.tanh(features_NF[:, :2].sum(1))}


def build(config: Config) -> Experiment:
    rate = optim.warmup_cosine(config.lr, warmup=3, steps=config.steps)
    return Experiment(
        task=regress(MLP((config.hidden,), 1, dropout=config.dropout)),
        optimizer=optim.sgd(rate, momentum=0.9),
        train=ArrayPipeline(arrays("train"), batch=config.batch, seed=config.seed),
        evals={"test": ArrayPipeline(arrays("test"), batch=config.batch)},
        steps=config.steps,
        eval_every=config.eval_every or None,
        checkpoint_every=config.save_every or None,
        log_every=config.log_every,
        best=("test/loss", min),
        seed=config.seed,
        baselines=lambda: {"mean of the targets": {"test/loss": float(np.var(arrays("test")["target"]))}},
    )
