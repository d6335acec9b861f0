"""Ratings of movies: matrix factorization with biases, and with genres and decades (Koren et al., 2009).

jaxmodels train experiments/movielens_mf.py   (JAXMODELS_DATA names the folder that holds ml_latest_small/)
jaxmodels train experiments/movielens_mf.py --attributes 0  without genres and decades
jaxmodels recommend RUN --user 15                           movies that user 15 has not rated

Of the 100,004 ratings of the 2016 edition a tenth is tested and another validates, by split(data, 0.1, 0.1)
of jaxmodels.data.split; penalties and size were chosen on the validation part.

Result: test RMSE 0.855 in a minute, most of it for the baselines (global mean 1.066, biases 0.888, item-kNN
0.874, --attributes 0 0.874 too); MAE 0.654; two cores of a virtual machine that had other work, at e33c1d0.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from jaxmodels import Evaluation, Experiment, Target, optim
from jaxmodels.data.datasets.movielens import (
    ATTRIBUTES,
    HIGHEST,
    ITEMS,
    LOWEST,
    MOST,
    USERS,
    movielens,
    movies,
)
from jaxmodels.data.known import known
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.data.split import part_of
from jaxmodels.models.factorization import MatrixFactorization
from jaxmodels.scores import neighbors, recommendation
from jaxmodels.tasks.penalty import penalised
from jaxmodels.tasks.recommend import Recommendations, recommender, scores_of_pairs
from jaxmodels.tasks.regress import regress

PARTS = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 1_200  # 80 are a pass
    batch: int = 1_000
    lr: float = 5e-3  # at first; it falls as a cosine
    width: int = 64
    penalty: float = 0.12  # of factors
    bias_penalty: float = 0.05
    attributes: int = MOST  # of a movie: genres and the decade
    attribute_penalty: float = 0.01
    data: str = (
        ""  # folder of the CSV files; by default ml_latest_small in $JAXMODELS_DATA or the user's cache
    )


def build(config: Config) -> Experiment:
    A, folder = config.attributes, config.data or None

    def about():
        found = movies(movielens(folder).items, folder)
        return {"titles": found.titles, "attributes": found.attributes_VA[:, :A]}

    @cache
    def parts():
        data = movielens(folder)
        part_N = part_of(len(data.user_N), (0.1, 0.1))
        return {name: data.at(part_N == number) for name, number in PARTS.items()}

    trained_on = known("movielens", lambda: parts()["train"], about)

    def items():
        attributes = np.array(trained_on().about["attributes"], np.int32).reshape(ITEMS, A)
        return np.concatenate([np.arange(ITEMS, dtype=np.int32)[:, None], attributes], 1)

    def arrays(name: str):
        part = parts()[name]
        ids = np.concatenate([part.user_N[:, None], items()[part.item_N]], 1)
        return {"ids": ids, "target": part.rating_N}

    def evaluation(name: str):
        data = ArrayPipeline(lambda: arrays(name), batch=config.batch, spec=SPEC)
        return Evaluation(data)

    def baselines():
        train = parts()["train"]
        columns = (train.user_N, train.item_N, train.rating_N, USERS, ITEMS)
        ways = {
            "global mean": neighbors.mean_of_ratings(train.rating_N),
            "biases": neighbors.biases(*columns),
            "item-kNN": neighbors.rating_knn(*columns),
        }
        return {name: {f"test/{k}": x for k, x in errors(way).items()} for name, way in ways.items()}

    def errors(way):
        test = parts()["test"]
        said = np.clip(way(test.user_N, test.item_N), LOWEST, HIGHEST)
        return {
            "rmse": recommendation.rmse(said, test.rating_N),
            "mae": recommendation.mae(said, test.rating_N),
        }

    def recommendations():
        of = trained_on()
        return Recommendations(of.users, of.items, of.past, of.about["titles"])

    SPEC = {"ids": ((2 + A,), np.dtype(np.int32)), "target": ((), np.dtype(np.float32))}
    model = MatrixFactorization(
        USERS,
        ITEMS,
        config.width,
        attributes=ATTRIBUTES if A else 0,
        mean=3.5,
        bounds=(LOWEST, HIGHEST),
    )
    task = penalised(
        regress(model, inputs="ids"),
        model,
        factors=config.penalty,
        biases=config.bias_penalty,
        attributes=config.attribute_penalty,
    )
    return Experiment(
        task=task,
        optimizer=optim.adam(optim.warmup_cosine(config.lr, warmup=1, steps=config.steps)),
        train=ArrayPipeline(lambda: arrays("train"), batch=config.batch, seed=config.seed, spec=SPEC),
        evals={"validation": evaluation("validation"), "test": evaluation("test")},
        steps=config.steps,
        seed=config.seed,
        rules=model.rules(),
        predictor=recommender(scores_of_pairs(model, items), recommendations),
        baselines=baselines,
        target=Target("rmse", 0.874, "lower", source="item-kNN"),
    )
