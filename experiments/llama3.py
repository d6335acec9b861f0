"""Llama 3 (arXiv:2407.21783) in its sizes, with the rates of its table 3, on tokens of your own.

jaxmodels tokenize TEXTS tokens --tokenizer tokenizer.json
jaxmodels train experiments/llama3.py --data tokens --precision bfloat16
jaxmodels plan experiments/llama3.py --on v6e-256 --size 70b

Differs from the paper: windows of 8,192 tokens and 8 million of them in a batch from the start, which the
paper reaches step by step; no annealing on chosen data. Not run here; made for accelerators.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from jaxmodels import Experiment, optim
from jaxmodels.data import locate
from jaxmodels.data.formats.token_files import open_tokens
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.data.pipeline import WindowPipeline
from jaxmodels.models import llama
from jaxmodels.tasks.language import decoder, next_token


class Size(NamedTuple):
    """A column of table 3."""

    model: Any
    lr: float


SIZES = {
    "8b": Size(llama.llama3_8b, 3e-4),
    "70b": Size(llama.llama3_70b, 1.5e-4),
    "405b": Size(
        partial(llama.llama3, width=16384, depth=126, heads=128, key_heads=8, hidden_width=53248),
        8e-5,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    size: Literal["8b", "70b", "405b"] = "8b"
    seed: int = 0
    tokens: float = 15e12  # to train on
    batch: int = 1024  # windows
    length: int = 8192  # tokens of a window
    lr: float = 0.0  # peak; 0 is the paper's for the size
    data: str = ""  # folder of `jaxmodels tokenize`; by default llama3 in $JAXMODELS_DATA or the user's cache


def build(config: Config) -> Experiment:
    size, folder = SIZES[config.size], locate.folder("llama3", config.data or None)
    model = size.model(length=config.length, remat="full")
    steps = round(config.tokens / (config.batch * config.length))
    rate = optim.warmup_cosine(config.lr or size.lr, warmup=min(8000, steps), steps=steps, end=0.01)
    window = partial(WindowPipeline, length=config.length, batch=config.batch)
    made = partial(Tokenizer.load, folder / "tokenizer.json")
    return Experiment(
        task=next_token(model),
        optimizer=optim.adamw(rate, b2=0.95, weight_decay=0.1, clip=1.0),
        train=window(lambda: open_tokens(folder / "train.npy"), seed=config.seed),
        evals={"validation": window(lambda: open_tokens(folder / "validation.npy"))},
        steps=steps,
        rules=model.rules(),
        eval_every=2000,
        checkpoint_every=1000,
        seed=config.seed,
        decoder=decoder(
            model, encode=lambda x: made().encode(x), decode=lambda x: made().decode(x), prompt="The"
        ),
    )
