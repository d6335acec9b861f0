"""k-fold cross-validation of an MLP on handwritten digits, every fold with its share of each class.

All folds, with mean and spread:  python experiments/digits_kfold.py
One fold as a run:                jaxmodels train experiments/digits_kfold.py --fold 3

Result: mean accuracy 98.16%, standard deviation over five folds 0.58%;
two cores of an AMD EPYC virtual machine, at 4e5d582.
"""

from dataclasses import dataclass

from jaxmodels import Experiment, Target, optim, train
from jaxmodels.data.datasets.digits import digits_arrays
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.data.split import fold
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.classify import classify


@dataclass(frozen=True, kw_only=True)
class Config:
    fold: int = 0  # which part is held out
    folds: int = 5
    seed: int = 0
    steps: int = 600
    batch: int = 128
    lr: float = 3e-3


def build(config: Config) -> Experiment:
    train, held_out = fold(digits_arrays(), config.fold, folds=config.folds, by="label")
    rate = optim.warmup_cosine(config.lr, warmup=50, steps=config.steps)
    return Experiment(
        task=classify(MLP((128, 128), 10, dropout=0.2)),
        optimizer=optim.adamw(rate, weight_decay=0.01),
        train=ArrayPipeline(train, batch=config.batch, seed=config.seed),
        evals={"held-out": ArrayPipeline(held_out, batch=config.batch)},
        steps=config.steps,
        seed=config.seed,
        target=Target("accuracy", 0.98, "higher", split="held-out"),
    )


def main() -> None:
    import numpy as np

    scores = []
    for number in range(Config().folds):
        scores.append(train(build(Config(fold=number))).metrics["held-out/accuracy"])
        print(f"fold {number}: accuracy {scores[-1]:.4f}")
    print(f"mean {np.mean(scores):.4f}, standard deviation over folds {np.std(scores, ddof=1):.4f}")


if __name__ == "__main__":
    main()
