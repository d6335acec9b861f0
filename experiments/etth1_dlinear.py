"""The next four days of a transformer's loads from the two weeks before: DLinear (arXiv:2205.13504).

jaxmodels train experiments/etth1_dlinear.py   (JAXMODELS_DATA names the folder that holds ett/)

Errors are in standard deviations of the training span, over every window of the published test months.
Rate, batch and epochs are the authors'.

Result: test MSE 0.371 and MAE 0.392 (published 0.375 and 0.399; seasonal naive 0.512 and 0.433) in 31 s, on
two cores of an AMD EPYC virtual machine with other work.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxmodels import Experiment, Target, optim
from jaxmodels.data.datasets.ett import etth1
from jaxmodels.models.dlinear import DLinear
from jaxmodels.scores import forecasting
from jaxmodels.scores.simple_forecasts import drift, naive, seasonal_naive
from jaxmodels.tasks.forecast import forecast


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    epochs: int = 10
    batch: int = 32
    lr: float = 0.005  # of the first epoch; halved after each
    history: int = 336
    horizon: int = 96
    data: str = ""  # folder of ETTh1.csv; by default ett in $JAXMODELS_DATA or the user's cache


def build(config: Config) -> Experiment:
    def data(split, batch, seed=None):
        sizes = {"history": config.history, "horizon": config.horizon, "folder": config.data or None}
        return etth1(split, batch, seed, **sizes)

    def baselines():
        return {
            "naive": measured(naive),
            "seasonal naive": measured(lambda history, H: seasonal_naive(history, H, season=24)),
            "drift": measured(drift),
            "published": {"test/mse": 0.375},
        }

    def measured(method: Callable[..., np.ndarray]) -> dict[str, float]:
        test = data("test", 256)
        batches = [test.rows(step, 0, test.batch) for step in range(test.steps)]
        target, weight, guess = (
            np.concatenate(parts)
            for parts in zip(
                *((b["target"], b["weight"], method(b["history"], config.horizon)) for b in batches),
                strict=True,
            )
        )
        scores = {"mse": forecasting.mse, "mae": forecasting.mae}
        return {f"test/{name}": score(guess, target, weight) for name, score in scores.items()}

    epoch = (8_640 - config.history - config.horizon + 1) // config.batch
    return Experiment(
        task=forecast(DLinear(config.horizon)),
        optimizer=optim.adam(
            optim.steps_at(
                config.lr, boundaries=tuple(n * epoch for n in range(1, config.epochs)), factor=0.5
            )
        ),
        train=data("train", config.batch, config.seed),
        evals={split: data(split, 256) for split in ("validation", "test")},
        steps=config.epochs * epoch,
        eval_every=epoch,
        seed=config.seed,
        baselines=baselines,
        target=Target("mse", 0.375, "lower", source="published, arXiv:2205.13504"),
    )
