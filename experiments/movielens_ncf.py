"""Which movie a user rates next: neural collaborative filtering of MovieLens (arXiv:1708.05031).

jaxmodels train experiments/movielens_ncf.py   (JAXMODELS_DATA names the folder that holds ml_latest_small/)
jaxmodels train experiments/movielens_ncf.py --loss bpr
jaxmodels recommend RUN --user 15

Every rating counts as a choice. Each user's last one is tested, and the one before validates; four movies
that the user has not rated are drawn for each choice in every pass, as in the paper. Scores are over all
9,066 movies; sampled_… are among 100 that the user has not rated, as in the paper's tables.

Result: at the step whose validation is best, 3,600, hit rate at 10 0.064 and NDCG at 10 0.032, hardly above
item-kNN (0.061 and 0.031; popular movies 0.042 and 0.020), as 671 users tell apart no more than 0.01; sampled
0.659 and 0.420 (item-kNN 0.644 and 0.419). 7 min beside other work; two cores of an AMD EPYC virtual machine,
at 9bac96e.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from jaxmodels import Evaluation, Experiment, Target, optim
from jaxmodels.data.datasets.movielens import ITEMS, USERS, movielens, movies
from jaxmodels.data.interaction_splits import joined, leave_one_out
from jaxmodels.data.interactions import history
from jaxmodels.data.known import known
from jaxmodels.data.negatives import Unseen, with_negatives, with_seen
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.ncf import NeuMF
from jaxmodels.scores import neighbors, recommendation
from jaxmodels.tasks.bpr import bpr
from jaxmodels.tasks.clicks import clicks
from jaxmodels.tasks.recommend import Recommendations, placed_target, recommender, scores_of_pairs

DRAWN, SAMPLED = 4, 100
IDS = ((2,), np.dtype(np.int32))


@dataclass(frozen=True, kw_only=True)
class Config:
    loss: Literal["clicks", "bpr"] = "clicks"
    seed: int = 0
    steps: int = 4_000
    batch: int = 1_000
    lr: float = 1e-3
    width: int = 16
    weight_decay: float = 0.1
    data: str = (
        ""  # folder of the CSV files; by default ml_latest_small in $JAXMODELS_DATA or the user's cache
    )


def build(config: Config) -> Experiment:
    folder = config.data or None

    @cache
    def splits():
        return leave_one_out(movielens(folder))

    def about():
        return {"titles": movies(movielens(folder).items, folder).titles}

    trained_on = known("movielens", lambda: splits().train, about)

    @cache
    def unseen(name: str):
        parts = splits()
        past = history(parts.train if name != "test" else joined(parts.train, parts.validation))
        return Unseen(past, ITEMS)

    def choices():
        trained_on()
        train = splits().train
        ids = np.stack([train.user_N, train.item_N], 1)
        if config.loss == "bpr":
            return {"ids": ids, "user": train.user_N}
        label = np.repeat(np.array([1, *[0] * DRAWN], np.float32), len(ids))
        return {"ids": np.tile(ids, (1 + DRAWN, 1)), "label": label}

    def drawn(batch, keys_B):
        """In place of the movies of rows without a choice, others that the user has not rated."""
        if config.loss == "bpr":
            return with_negatives(unseen("train"), DRAWN)(batch, keys_B)
        item_B = unseen("train").draw(keys_B, batch["ids"][:, 0], 1)[:, 0]
        item_B = np.where(batch["label"] > 0, batch["ids"][:, 1], item_B)
        return {**batch, "ids": np.stack([batch["ids"][:, 0], item_B], 1)}

    def asked(name: str):
        part = getattr(splits(), name)
        ids = np.stack([part.user_N, part.item_N], 1)
        return {
            "ids": ids,
            "user": part.user_N,
            "target": part.item_N,
            "label": np.ones(len(ids), np.float32),
        }

    def among(name: str, batch, keys_B):
        batch = with_negatives(unseen(name), SAMPLED)(batch, keys_B)
        return with_seen(unseen(name).past)(batch, keys_B)

    def measured(placed):
        return recommendation.one_relevant(placed["higher"], placed["equal"]) | recommendation.one_relevant(
            placed["sampled_higher"], placed["sampled_equal"], prefix="sampled_"
        )

    def score(predictions, batches):
        placed = recommendation.concatenated(predictions)
        return measured(placed) | {
            "coverage": recommendation.coverage(placed["top"], ITEMS),
            "popularity": recommendation.mean_popularity(
                placed["top"], np.bincount(splits().train.item_N, minlength=ITEMS)
            ),
        }

    def evaluation(name: str):
        data = ArrayPipeline(
            lambda: asked(name), batch=61, augment=(lambda batch, keys_B: among(name, batch, keys_B),)
        )
        return Evaluation(data, predict=placed_target(scores), score=score)

    def baselines():
        both = joined(splits().train, splits().validation)
        arrays = asked("test")
        batch = among("test", arrays, np.arange(len(arrays["user"]), dtype=np.uint64))
        ways = {
            "popular movies": neighbors.popular(both.item_N, ITEMS),
            "item-kNN": neighbors.item_knn(both.user_N, both.item_N, USERS, ITEMS),
        }
        return {
            name: {f"test/{metric}": x for metric, x in measured(neighbors.placed(way, batch)).items()}
            for name, way in ways.items()
        }

    def recommendations():
        of = trained_on()
        return Recommendations(of.users, of.items, of.past, of.about["titles"])

    model = NeuMF(USERS, ITEMS, config.width, (4 * config.width, 2 * config.width, config.width))
    scores = scores_of_pairs(model, lambda: np.arange(ITEMS)[:, None])
    number = ((), np.dtype(np.int32))
    more = {"label": ((), np.dtype(np.float32))}
    if config.loss == "bpr":
        more = {"user": number, "negatives": ((DRAWN,), np.dtype(np.int32))}
    evaluated = max(1, config.steps // 10)
    return Experiment(
        task=clicks(model) if config.loss == "clicks" else bpr(model),
        optimizer=optim.adamw(config.lr, weight_decay=config.weight_decay, mask=optim.optimizers.everything),
        train=ArrayPipeline(
            choices, batch=config.batch, seed=config.seed, augment=(drawn,), spec={"ids": IDS, **more}
        ),
        evals={"validation": evaluation("validation"), "test": evaluation("test")},
        steps=config.steps,
        eval_every=evaluated,
        checkpoint_every=evaluated,
        best=("validation/ndcg@10", max),
        seed=config.seed,
        rules=model.rules(),
        predictor=recommender(scores, recommendations),
        baselines=baselines,
        target=Target("ndcg@10", 0.031, "higher", source="item-kNN"),
    )
