"""A GPT on the characters of Tiny Shakespeare, in the size that nanoGPT trains on a CPU, for as many steps.

jaxmodels train experiments/shakespeare_gpt.py

Result: validation loss 1.615 nats a character in 2:37 min (nanoGPT's README: 1.88 in this size and number of
steps; with Adam for all matrices, --muon 0 --lr 1e-3, 1.909 in 1:49 min). Longer, --length 128 --width 192
--heads 6 --batch 32 --steps 2400 --muon 0.03: 1.512 at step 1,800 after 22 min, where it was stopped, beside
other work. Python 3.11.7, two cores of an AMD EPYC virtual machine; the first at 6a20751, the others some
commits before. With --products int8 1.618, with float8 1.624, and 1.611 with neither, at 949fcf3 on two cores
of an Intel Xeon.
"""

from dataclasses import dataclass

from jaxmodels import Experiment, Target, optim
from jaxmodels.data.datasets.tinyshakespeare import ALPHABET, decode, encode, tinyshakespeare
from jaxmodels.data.pipeline import WindowPipeline
from jaxmodels.layers.quantize import Products, quantized
from jaxmodels.models.gpt import GPT
from jaxmodels.tasks.language import decoder, next_token


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 2000
    batch: int = 12
    length: int = 64  # characters that the model sees
    width: int = 128
    depth: int = 4
    heads: int = 4
    dropout: float = 0.0
    lr: float = 3e-3  # of Adam, for embeddings, biases and norms
    muon: float = 0.02  # of Muon, for the matrices; 0: Adam for all, as nanoGPT has it
    weight_decay: float = 0.1
    eval_every: int = 1000
    products: Products = "float"  # of the blocks; int8 and float8 need the library qwix


def build(config: Config) -> Experiment:
    model = GPT(
        len(ALPHABET),
        config.length,
        config.width,
        config.depth,
        config.heads,
        dropout=config.dropout,
        unroll=config.depth,
    )
    model = quantized(model, config.products)
    rate = optim.warmup_cosine(config.lr, warmup=100, steps=config.steps, end=0.1)
    adam = optim.adamw(rate, weight_decay=config.weight_decay, b2=0.99, clip=1.0)
    muon = optim.muon(
        optim.warmup_linear(config.muon, warmup=100, steps=config.steps),
        adam_rate=optim.warmup_linear(config.lr, warmup=100, steps=config.steps),
        weight_decay=config.weight_decay,
        clip=1.0,
    )
    return Experiment(
        task=next_token(model),
        rules=model.rules(),
        optimizer=muon if config.muon else adam,
        train=WindowPipeline(
            lambda: tinyshakespeare("train"),
            length=config.length,
            stride=1,
            batch=config.batch,
            seed=config.seed,
        ),
        evals={
            "validation": WindowPipeline(
                lambda: tinyshakespeare("validation"), length=config.length, batch=64
            )
        },
        steps=config.steps,
        eval_every=config.eval_every,
        checkpoint_every=500,
        seed=config.seed,
        decoder=decoder(model, encode=encode, decode=decode, prompt="\n"),
        target=Target("loss", 1.88, "lower", split="validation", source="nanoGPT's README"),
    )
