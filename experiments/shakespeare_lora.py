"""LoRA: a small model of children's stories (stories260K, of llama2.c) learns Shakespeare.

jaxmodels train experiments/shakespeare_lora.py --weights stories260K.bin   (and tok512.bin beside it)
jaxmodels generate runs/shakespeare_lora

Result: validation loss 2.632 nats a token, 5.123 before training, by 46,240 trained numbers beside 260,032,
in 4:11 min; two cores of an AMD EPYC virtual machine that ran tests beside, at a041887.
"""

from dataclasses import dataclass

import numpy as np

from jaxmodels import Experiment, Target, optim
from jaxmodels.convert.text import open_text_model
from jaxmodels.data.datasets.tinyshakespeare import decode, tinyshakespeare
from jaxmodels.data.pipeline import WindowPipeline
from jaxmodels.tasks.lora import lora
from jaxmodels.tasks.pretrained import start_from


@dataclass(frozen=True, kw_only=True)
class Config:
    weights: str = "stories260K.bin"
    seed: int = 0
    steps: int = 600
    batch: int = 16
    length: int = 128  # tokens of a window
    rank: int = 8  # inner size of each adapter
    alpha: float = 16.0
    lr: float = 3e-3


def build(config: Config) -> Experiment:
    stories = open_text_model(config.weights)

    def tokens(split) -> np.ndarray:
        lines = decode(tinyshakespeare(split)).splitlines(keepends=True)
        return np.concatenate([np.asarray(stories.decoder.encode(line), np.int32) for line in lines])

    rate = optim.warmup_cosine(config.lr, warmup=config.steps // 20, steps=config.steps)
    return Experiment(
        # start_from gives the parameters, lora trains adapters of those that the expression finds, beside
        # them.
        task=lora(
            start_from(stories.task, stories.params),
            rank=config.rank,
            alpha=config.alpha,
            paths=r"blocks/.*kernel",
        ),
        optimizer=optim.adam(rate, clip=1.0),
        train=WindowPipeline(
            lambda: tokens("train"), length=config.length, stride=1, batch=config.batch, seed=config.seed
        ),
        evals={"validation": WindowPipeline(lambda: tokens("validation"), length=config.length, batch=32)},
        steps=config.steps,
        eval_every=300,
        seed=config.seed,
        decoder=stories.decoder._replace(prompt="ROMEO:\n"),
        target=Target("loss", 2.632, "lower", split="validation", source="the first run"),
    )
