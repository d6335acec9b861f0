"""muP: the best learning rate of a narrow MLP is that of wide ones (arXiv:2203.03466), on Fashion-MNIST.

jaxmodels sweep experiments/mup_transfer.py --width 64,256,512 --lr 1e-4,2e-4,4e-4,8e-4,1.6e-3,3.2e-3,6.4e-3
    (and the same with --parametrization standard; JAXMODELS_DATA names the folder that holds fashion_mnist/)
"""

from dataclasses import dataclass
from typing import Literal

from jaxmodels import Experiment, optim
from jaxmodels.data.datasets.fashion_mnist import fashion_mnist
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.mup import MLP_RULES, mup, rates


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 400
    batch: int = 128
    width: int = 64  # of all hidden layers
    base: int = 64  # width at which both parametrizations are the same
    depth: int = 4  # hidden layers
    lr: float = 1e-3  # constant
    parametrization: Literal["mup", "standard"] = "mup"
    data: str = ""  # folder of the files; by default fashion_mnist in $JAXMODELS_DATA or the user's cache


def build(config: Config) -> Experiment:
    task = classify(MLP((config.width,) * config.depth, 10))
    optimizer = optim.adam(config.lr)
    if config.parametrization == "mup":
        m = config.width / config.base
        task = mup(task, MLP_RULES, m)
        optimizer = optim.scaled(optimizer, rates(MLP_RULES, m))
    folder = config.data or None
    train = fashion_mnist("train", batch=config.batch, seed=config.seed, folder=folder)
    return Experiment(
        task=task,
        optimizer=optimizer,
        train=train,
        evals={"train": fashion_mnist("train", batch=1_000, folder=folder)},
        steps=config.steps,
        eval_every=config.steps,
        seed=config.seed,
    )
