"""A tiny perceptron with every kind of knob that a sweep has to tell apart."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import Evaluation, Experiment, optim
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.classify import classify


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 12
    width: int = 8
    lr: float = 0.1
    decay: float = 0.0
    momentum: float = 0.9  # only where it is above zero, which a traced number does not tell
    smoothing: float = 0.0
    noise: float = 0.0  # of the data
    kind: Literal["sgd", "adam"] = "sgd"
    dropout: float = 0.1


def arrays(examples: int, noise: float) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    label = random.integers(0, 3, examples, dtype=np.int32)
    image = (
        np.eye(3, dtype=np.float32)[label]
        + 0.5
        + noise * random.normal(size=(examples, 3)).astype(np.float32)
    )
    return {"image": image.reshape(examples, 1, 3, 1), "label": label}


def build(config: Config) -> Experiment:
    rate = optim.warmup_cosine(config.lr, warmup=2, steps=config.steps)
    if config.kind == "adam":
        optimizer = optim.adamw(rate, weight_decay=config.decay)
    else:
        momentum = config.momentum if config.momentum > 0 else None
        optimizer = optim.sgd(rate, momentum=momentum, weight_decay=config.decay)

    def data(n, **more):
        return ArrayPipeline(arrays(n, config.noise), batch=8, **more)

    return Experiment(
        task=classify(MLP((config.width,), 3, dropout=config.dropout), smoothing=config.smoothing),
        optimizer=optimizer,
        train=data(40, seed=config.seed),
        evals={
            "test": data(20),
            "scored": Evaluation(
                data(20),
                predict=lambda params, extra, batch: jnp.full(
                    8, sum(p.sum() for p in jax.tree.leaves(params))
                ),
                score=lambda predictions, batches: {
                    "sum": float(np.concatenate(predictions).mean(dtype=np.float64))
                },
            ),
        },
        steps=config.steps,
        eval_every=6,
        checkpoint_every=4,
        log_every=3,
        seed=config.seed,
    )
