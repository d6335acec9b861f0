"""A small MLP on handwritten digits."""

from dataclasses import dataclass

import numpy as np

from jaxmodels import optim
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.experiment import Experiment
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.classify import classify


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 2000
    batch: int = 128
    lr: float = 1e-3


def arrays(split):
    from sklearn.datasets import load_digits

    d = load_digits()
    a = {"image": (d.images / 16).astype(np.float32), "label": d.target.astype(np.int32)}
    return {k: v[:1400] if split == "train" else v[1400:] for k, v in a.items()}


def build(config: Config) -> Experiment:
    return Experiment(
        task=classify(MLP((128, 128), 10)),
        optimizer=optim.adam(config.lr),
        train=ArrayPipeline(lambda: arrays("train"), batch=config.batch, seed=config.seed),
        evals={"test": ArrayPipeline(lambda: arrays("test"), batch=config.batch)},
        steps=config.steps,
        eval_every=500,
        seed=config.seed,
    )
