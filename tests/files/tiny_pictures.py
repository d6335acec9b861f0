"""A classifier of generated 8 x 8 images, light or dark, with what `jaxmodels predict` needs.

Dimensions: N examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxmodels import Evaluation, Experiment, optim
from jaxmodels.data.drawing import captioned
from jaxmodels.data.formats.images import read_image
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.classify import classify, predictor, probabilities


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 20
    lr: float = 0.5


def arrays(n: int) -> dict[str, np.ndarray]:
    label_N = np.arange(n, dtype=np.int32) % 2
    noise = np.random.default_rng(n).uniform(0, 0.3, (n, 8, 8, 1)).astype(np.float32)
    return {"image": noise + np.float32(0.7) * label_N[:, None, None, None], "label": label_N}


def drawn(predictions, batches) -> dict[str, np.ndarray]:
    return {"first": (255 * batches[0]["image"][0]).astype(np.uint8)}


def build(config: Config) -> Experiment:
    model = MLP((), 2)
    return Experiment(
        task=classify(model),
        optimizer=optim.sgd(config.lr),
        train=ArrayPipeline(arrays(32), batch=8, seed=config.seed),
        evals={
            "test": Evaluation(
                ArrayPipeline(arrays(8), batch=8), predict=probabilities(model), pictures=drawn
            )
        },
        steps=config.steps,
        eval_every=10,
        seed=config.seed,
        predictor=predictor(
            model,
            ("dark", "light"),
            read=lambda path: {"image": read_image(path, 8, channels=1)},
            caption=captioned,
        ),
    )
