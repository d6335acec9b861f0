"""An LSTM in place of the GPT of shakespeare_gpt.py: the same characters, windows, batches, steps and size.

2 layers, 224 wide, tied: 65 M + 2 (8 M^2 + 4 M) = 819,168 parameters; the GPT of 4 layers, 128 wide, has
65 M + 64 M + 4 (12 M^2 + 13 M) + 2 M = 809,856. Each window starts from states of zero.

jaxmodels train experiments/shakespeare_lstm.py

Result: validation loss 1.703 nats a character in 1:49 min; 1.979 with --lr 1e-3. (shakespeare_gpt.py: 1.615
with Muon, 1.909 with Adam.) Python 3.11.7, two cores of an AMD EPYC virtual machine, at 0c6ca39.
"""

from dataclasses import dataclass

from jaxmodels import Experiment, Target, optim
from jaxmodels.data.datasets.tinyshakespeare import ALPHABET, decode, encode, tinyshakespeare
from jaxmodels.data.pipeline import WindowPipeline
from jaxmodels.layers.recurrent import Cell
from jaxmodels.models.rnn import RNN
from jaxmodels.tasks.language import decoder, next_token


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 2000
    batch: int = 12
    length: int = 64  # characters of a window
    cell: Cell = "lstm"
    width: int = 224
    depth: int = 2
    dropout: float = 0.0
    lr: float = 4e-3
    weight_decay: float = 0.1
    eval_every: int = 500


def build(config: Config) -> Experiment:
    model = RNN(len(ALPHABET), config.width, config.depth, config.cell, dropout=config.dropout)
    rate = optim.warmup_cosine(config.lr, warmup=100, steps=config.steps, end=0.1)
    return Experiment(
        task=next_token(model),
        optimizer=optim.adamw(rate, weight_decay=config.weight_decay, b2=0.99, clip=1.0),
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
        target=Target("loss", 1.703, "lower", split="validation", source="the first run"),
    )
