"""A small GPT on the source of Python's own standard library, in tokens of a byte-level BPE.

jaxmodels train experiments/python_gpt_bpe.py

Result: 1.562 validation bits per byte (order-0 entropy 4.854, lzma 1.398) in 1:57 min. gpt_python.py, which
sees the same bytes one by one: 1.971 in 2:07 min, with the same blocks and twice the tokens in a step, so 1.6
times the arithmetic. Python 3.11.7, two cores of an AMD EPYC virtual machine, at 6a20751.

Bits per byte is the loss in bits for a token, times the validation tokens and divided by their bytes. The
tokenizer is trained on first use and kept in ~/.cache/jaxmodels and in the run's folder.
"""

import hashlib
import math
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from jaxmodels import Experiment, Target, optim
from jaxmodels.data.datasets.python_source import lzma_bits_per_byte, order0_bits_per_byte, python_source
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.data.learned import learned
from jaxmodels.data.pipeline import WindowPipeline
from jaxmodels.models.gpt import GPT
from jaxmodels.tasks.language import decoder, next_token

VALIDATION = 1 << 18  # bytes of the held-out files that are scored, as in gpt_python.py
VOCABULARY = 2048
SEPARATOR = "Ā"  # byte-level BPE's name for the zero byte, which stands before every file


def files(tokens: np.ndarray) -> list[str]:
    return [text.decode(errors="replace") for text in tokens.tobytes().split(b"\0")[1:]]


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.learned("tokenizer", trained)


def trained() -> Tokenizer:
    train = python_source("train")
    name = hashlib.sha256(train.tobytes() + b"%d" % VOCABULARY).hexdigest()[:16]
    path = Path.home() / ".cache" / "jaxmodels" / "python_gpt_bpe" / f"{name}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        Tokenizer.train(files(train), vocabulary=VOCABULARY).save(part)
        os.replace(part, path)
    return Tokenizer.load(path)


def encoded(texts: list[str]) -> np.ndarray:
    separator = tokenizer().token(SEPARATOR)
    return np.concatenate(
        [np.array([separator, *tokens], np.uint16) for tokens in tokenizer().encode_many(texts)]
    )


def validation_bytes() -> np.ndarray:
    return python_source("validation")[:VALIDATION]


@cache
def validation() -> np.ndarray:
    return encoded(files(validation_bytes()))


@cache
def bytes_per_token() -> float:
    return learned("bytes per token", lambda: len(validation_bytes()) / len(validation()))


def baselines() -> dict[str, dict[str, float]]:
    """Bits per byte of the same bytes by their frequencies, and by xz after the last MiB of training text."""
    name = "validation/bits_per_byte"
    return {
        "order-0 entropy": {name: order0_bits_per_byte(validation_bytes())},
        "lzma": {name: lzma_bits_per_byte(python_source("train"), validation_bytes(), tail=1 << 20)},
    }


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 600
    batch: int = 16
    length: int = 64  # tokens that the model sees
    width: int = 128
    depth: int = 4
    heads: int = 4
    lr: float = 5e-2  # of Muon, for the matrices
    adam_lr: float = 8e-3  # of Adam, for embeddings, biases and norms


def build(config: Config) -> Experiment:
    model = GPT(VOCABULARY, config.length, config.width, config.depth, config.heads, unroll=config.depth)
    rate, adam_rate = (
        optim.warmup_linear(lr, warmup=min(50, config.steps), steps=config.steps)
        for lr in (config.lr, config.adam_lr)
    )
    task = next_token(model)

    def finish(metrics: dict[str, float]) -> dict[str, float]:
        # bytes_per_token= wants a number, and this one is known only when there is a tokenizer
        return {**task.finish(metrics), "bits_per_byte": metrics["loss"] / math.log(2) / bytes_per_token()}

    return Experiment(
        task=task._replace(finish=finish),
        rules=model.rules(),
        optimizer=optim.muon(rate, adam_rate=adam_rate, clip=1.0),
        train=WindowPipeline(
            lambda: encoded(files(python_source("train"))),
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
            encode=lambda text: tokenizer().encode(text),
            decode=lambda tokens: tokenizer().decode(tokens),
            prompt="def ",
        ),
        baselines=baselines,
        target=Target("bits_per_byte", 1.562, "lower", split="validation", source="the first run"),
    )
