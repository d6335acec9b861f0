"""A small GPT on the source of Python's own standard library, byte by byte.

jaxmodels train experiments/gpt_python.py

Result: 1.971 validation bits per byte (order-0 entropy 4.854, lzma 1.398) in 2:07 min, Python 3.11.7;
two cores of an AMD EPYC virtual machine, at 6a20751.
"""

from dataclasses import dataclass

import numpy as np

from jaxmodels import Experiment, Target, optim
from jaxmodels.data.datasets.python_source import lzma_bits_per_byte, order0_bits_per_byte, python_source
from jaxmodels.data.pipeline import WindowPipeline
from jaxmodels.models.gpt import GPT
from jaxmodels.tasks.language import decoder, next_token

VALIDATION = 1 << 18  # bytes of the held-out files that are scored, by the model and by its baselines


def validation() -> np.ndarray:
    return python_source("validation")[:VALIDATION]


def baselines() -> dict[str, dict[str, float]]:
    """Bits per byte of the same bytes by their frequencies, and by xz after the last MiB of training text."""
    name = "validation/bits_per_byte"
    train = python_source("train")
    return {
        "order-0 entropy": {name: order0_bits_per_byte(validation())},
        "lzma": {name: lzma_bits_per_byte(train, validation(), tail=1 << 20)},
    }


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 600
    batch: int = 16
    length: int = 128  # bytes that the model sees
    width: int = 128
    depth: int = 4
    heads: int = 4
    lr: float = 5e-2  # of Muon, for the matrices
    adam_lr: float = 8e-3  # of Adam, for embeddings, biases and norms


def build(config: Config) -> Experiment:
    model = GPT(256, config.length, config.width, config.depth, config.heads, unroll=config.depth)
    rate, adam_rate = (
        optim.warmup_linear(lr, warmup=min(50, config.steps), steps=config.steps)
        for lr in (config.lr, config.adam_lr)
    )
    return Experiment(
        task=next_token(model, bytes_per_token=1),
        rules=model.rules(),
        optimizer=optim.muon(rate, adam_rate=adam_rate, clip=1.0),
        train=WindowPipeline(
            lambda: python_source("train"),
            length=config.length,
            stride=1,
            batch=config.batch,
            seed=config.seed,
        ),
        evals={"validation": WindowPipeline(validation, length=config.length, batch=32)},
        steps=config.steps,
        eval_every=300,
        checkpoint_every=100,
        seed=config.seed,
        decoder=decoder(
            model,
            encode=lambda text: list(text.encode()),
            decode=lambda tokens: bytes(tokens).decode(errors="replace"),
            begin=0,
            end=0,
            prompt="def ",
        ),
        baselines=baselines,
        target=Target("bits_per_byte", 1.971, "lower", split="validation", source="the first run"),
    )
