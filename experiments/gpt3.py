"""GPT-3 (arXiv:2005.14165) in the sizes, batches and rates of its table 2.1, on tokens of your own.

jaxmodels tokenize TEXTS tokens --vocabulary 50257
jaxmodels train experiments/gpt3.py --data tokens --precision bfloat16
jaxmodels plan experiments/gpt3.py --on v5p-512 --size 175b

With --band 256 every second layer attends to a band of 256 tokens, as in the paper, which does not say how
wide; without, all layers attend densely. Differs from the paper: the batch is whole from the start; 175b has
1,536 windows in a batch, 3.1 million tokens for the paper's 3.2, so that 512 devices divide them. Not run
here; made for accelerators.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from jaxmodels import Experiment, optim
from jaxmodels.data import locate
from jaxmodels.data.formats.token_files import open_tokens
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.data.pipeline import WindowPipeline
from jaxmodels.models import gpt
from jaxmodels.tasks.language import decoder, next_token

LENGTH = 2048


class Size(NamedTuple):
    """A row of table 2.1."""

    model: Any
    batch: int  # windows of 2,048 tokens
    lr: float


SIZES = {
    "125m": Size(gpt.gpt3_small, 256, 6e-4),
    "350m": Size(gpt.gpt3_medium, 256, 3e-4),
    "760m": Size(gpt.gpt3_large, 256, 2.5e-4),
    "1.3b": Size(gpt.gpt3_xl, 512, 2e-4),
    "2.7b": Size(gpt.gpt3_2_7b, 512, 1.6e-4),
    "6.7b": Size(gpt.gpt3_6_7b, 1024, 1.2e-4),
    "13b": Size(gpt.gpt3_13b, 1024, 1e-4),
    "175b": Size(gpt.gpt3_175b, 1536, 6e-5),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    size: Literal["125m", "350m", "760m", "1.3b", "2.7b", "6.7b", "13b", "175b"] = "125m"
    seed: int = 0
    tokens: float = 300e9  # to train on
    batch: int = 0  # windows; 0 is the paper's for the size
    lr: float = 0.0  # peak; 0 is the paper's for the size
    band: int = 0  # tokens that every second layer attends to; 0: all
    data: str = ""  # folder of `jaxmodels tokenize`; by default gpt3 in $JAXMODELS_DATA or the user's cache


def build(config: Config) -> Experiment:
    size, folder = SIZES[config.size], locate.folder("gpt3", config.data or None)
    model, batch = size.model(band=config.band or None, remat="full"), config.batch or size.batch
    steps = round(config.tokens / (batch * LENGTH))
    warmup = max(1, round(375e6 / (batch * LENGTH)))
    rate = optim.warmup_cosine(config.lr or size.lr, warmup=warmup, steps=steps, end=0.1)
    window = partial(WindowPipeline, length=LENGTH, batch=batch)
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
