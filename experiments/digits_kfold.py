"""k-fold cross-validation of an MLP on handwritten digits, with scikit-learn's splitter.

All folds, with mean and spread:  python experiments/digits_kfold.py
One fold as a run:                jaxmodels train experiments/digits_kfold.py --fold 3

Result: mean accuracy 98.05%, standard deviation over five folds 0.56%, in 17 s;
two cores of an AMD EPYC virtual machine, at 282204d.
"""

from dataclasses import dataclass

from jaxmodels import Experiment, optim, train
from jaxmodels.data.digits import digits_arrays
from jaxmodels.data.pipeline import ArrayPipeline
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


def part(config: Config, which: int) -> dict:
    """Fold config.fold's training (0) or held-out (1) examples."""
    from sklearn.model_selection import StratifiedKFold

    arrays = digits_arrays()
    splitter = StratifiedKFold(config.folds, shuffle=True, random_state=0)
    rows = list(splitter.split(arrays["image"], arrays["label"]))[config.fold][which]
    return {name: x[rows] for name, x in arrays.items()}


def build(config: Config) -> Experiment:
    if not 0 <= config.fold < config.folds:
        raise ValueError(f"fold is {config.fold} of {config.folds} folds; it must be from 0 to {config.folds - 1}")
    rate = optim.warmup_cosine(config.lr, warmup=50, steps=config.steps)
    return Experiment(
        task=classify(MLP((128, 128), 10, dropout=0.2)),
        optimizer=optim.adamw(rate, weight_decay=0.01),
        train=ArrayPipeline(lambda: part(config, 0), batch=config.batch, seed=config.seed),
        evals={"held-out": ArrayPipeline(lambda: part(config, 1), batch=config.batch)},
        steps=config.steps,
        seed=config.seed,
    )


def main() -> None:
    import numpy as np

    scores = []
    for fold in range(Config().folds):
        scores.append(train(build(Config(fold=fold))).metrics["held-out/accuracy"])
        print(f"fold {fold}: accuracy {scores[-1]:.4f}")
    print(f"mean {np.mean(scores):.4f}, standard deviation over folds {np.std(scores, ddof=1):.4f}")


if __name__ == "__main__":
    main()
