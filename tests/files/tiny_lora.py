"""LoRA around what commands use beside the loss: a decoder, a predictor, a score of predictions, examples.

Dimensions: N examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxmodels import Evaluation, Experiment, optim
from jaxmodels.data.drawing import captioned
from jaxmodels.data.formats.images import read_image
from jaxmodels.data.pipeline import ArrayPipeline, WindowPipeline
from jaxmodels.models.gpt import GPT
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.classify import classify, predictor, probabilities
from jaxmodels.tasks.language import decoder, next_token
from jaxmodels.tasks.lora import lora

GREYS = ("dark", "light")
GPT_, MLP_ = GPT(vocabulary=16, length=8, width=16, depth=1, heads=2), MLP((), 2)
PATHS, RANK, ALPHA = "kernel", 2, 6.0


@dataclass(frozen=True, kw_only=True)
class Config:
    kind: str = "picture"
    steps: int = 40
    lr: float = 0.05


def images(n: int) -> dict[str, np.ndarray]:
    """From -0.5 to 0.5: no bias is adapted, so the classes lie on two sides of zero."""
    label_N = np.arange(n, dtype=np.int32) % 2
    noise = np.random.default_rng(n).uniform(0, 0.3, (n, 8, 8, 1)).astype(np.float32)
    return {"image": noise - 0.5 + np.float32(0.7) * label_N[:, None, None, None], "label": label_N}


def accuracy(predictions, batches) -> dict[str, float]:
    said, label = (np.concatenate(x) for x in (predictions, [batch["label"] for batch in batches]))
    return {"of_predictions": float((said.argmax(1) == label).mean())}


def build(config: Config) -> Experiment:
    optimizer = optim.with_ema(optim.adam(config.lr), 0.5)
    if config.kind == "text":
        data = WindowPipeline(np.tile(np.arange(16, dtype=np.uint8), 40), length=8, batch=8, seed=0)
        return Experiment(
            task=lora(next_token(GPT_), rank=RANK, alpha=ALPHA, paths=PATHS),
            optimizer=optimizer,
            train=data,
            steps=config.steps,
            decoder=decoder(
                GPT_,
                encode=lambda text: [int(c, 16) for c in text],
                decode=lambda t: "".join(f"{i:x}" for i in t),
            ),
        )

    def read(path):
        return {"image": read_image(path, 8, channels=1) - 0.5}

    return Experiment(
        task=lora(classify(MLP_), rank=RANK, alpha=ALPHA, paths=PATHS),
        optimizer=optimizer,
        train=ArrayPipeline(images(32), batch=8, seed=0),
        evals={"test": Evaluation(ArrayPipeline(images(8), batch=4), probabilities(MLP_), accuracy)},
        steps=config.steps,
        predictor=predictor(MLP_, GREYS, read=read, caption=captioned),
    )
