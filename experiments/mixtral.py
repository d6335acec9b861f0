"""Mixtral 8x7B (arXiv:2401.04088): 47 billion parameters, of which a token uses 13, on tokens of your own.

jaxmodels tokenize TEXTS tokens --tokenizer tokenizer.json
jaxmodels train experiments/mixtral.py --data tokens --precision bfloat16
jaxmodels plan experiments/mixtral.py --on h200-64

The paper does not say how it was trained; optimizer, rate, batch and number of tokens here are those of Llama
2 70B (arXiv:2307.09288, section 2.2). Not run here; made for accelerators.
"""

from dataclasses import dataclass
from functools import partial

from jaxmodels import Experiment, optim
from jaxmodels.data import locate
from jaxmodels.data.formats.token_files import open_tokens
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.data.pipeline import WindowPipeline
from jaxmodels.models.moe import mixtral_8x7b
from jaxmodels.tasks.language import decoder, next_token


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    tokens: float = 2e12  # to train on
    batch: int = 1024  # windows
    length: int = 4096  # tokens of a window
    depth: int = 32
    lr: float = 1.5e-4  # peak
    balance: float = 0.001  # of the loss that spreads tokens over experts
    data: str = (
        ""  # folder of `jaxmodels tokenize`; by default mixtral in $JAXMODELS_DATA or the user's cache
    )


def build(config: Config) -> Experiment:
    folder = locate.folder("mixtral", config.data or None)
    model = mixtral_8x7b(length=config.length, depth=config.depth, balance=config.balance, remat="full")
    steps = round(config.tokens / (config.batch * config.length))
    rate = optim.warmup_cosine(config.lr, warmup=min(2000, steps), steps=steps, end=0.1)
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
