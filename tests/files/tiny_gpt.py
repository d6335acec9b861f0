"""A GPT of one layer on a few kilobytes of made-up words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxmodels import Experiment, optim
from jaxmodels.data.pipeline import WindowPipeline
from jaxmodels.models.gpt import GPT
from jaxmodels.tasks.language import decoder, next_token

LETTERS = " abcdefghij"
LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 30
    batch: int = 8
    lr: float = 0.03
    dropout: float = 0.0


def encode(text: str) -> list[int]:
    return [LETTERS.index(c) for c in text]


def decode(tokens) -> str:
    return "".join(LETTERS[t] for t in tokens)


def words(seed: int) -> np.ndarray:
    """4,000 letters: words that each run up the alphabet, such as "cdef"."""
    random = np.random.default_rng(seed)
    starts, lengths = random.integers(1, 8, 2000), random.integers(1, 4, 2000)
    text = " ".join(LETTERS[a : a + n] for a, n in zip(starts, lengths, strict=True))
    return np.array(encode(text[:4000]), np.uint8)


def gpt(config: Config) -> GPT:
    return GPT(vocabulary=len(LETTERS), length=LENGTH, width=16, depth=1, heads=2, dropout=config.dropout)


def build(config: Config) -> Experiment:
    model = gpt(config)
    return Experiment(
        task=next_token(model, bytes_per_token=1.0),
        optimizer=optim.adam(config.lr, clip=1.0),
        train=WindowPipeline(lambda: words(0), length=LENGTH, batch=config.batch, stride=1, seed=config.seed),
        evals={"valid": WindowPipeline(lambda: words(1)[:500], length=LENGTH, batch=config.batch)},
        steps=config.steps,
        log_every=10,
        seed=config.seed,
        decoder=decoder(model, encode=encode, decode=decode, prompt="ab"),
    )
