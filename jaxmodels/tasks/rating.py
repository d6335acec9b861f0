"""Ratings by matrix factorization: squared error with a penalty (Koren, Bell and Volinsky, 2009, equation 5).

Dimensions: B ratings, F columns of the inputs.
"""

from __future__ import annotations

from typing import Any

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply
from jaxmodels.tasks.regress import regress
from jaxmodels.tasks.requirements import fields


def rating(model: Any, *, factors: float = 0.1, biases: float = 0.05, attributes: float = 0.01) -> Task:
    """Squared error on batches of "ids" (BF, int; user, item and attributes), "target" and "weight" (B).

    To each rating's error is added the penalty of what it uses, so that what is used often is penalised
    often: `factors` times the squared lengths of both vectors, and likewise for biases and attributes. The
    model has penalty() and sizes, as jaxmodels.models.factorization. Metrics are of the error alone: "loss",
    its mean square, "rmse" and "mae", in units of the ratings.
    """
    task = regress(model, inputs="ids")

    def loss(params, extra, batch, keys_B):
        error, extra, metrics = task.loss(params, extra, batch, keys_B)
        weights = {"factors": factors, "biases": biases, "attributes": attributes}
        penalty_B = model.apply({"params": params, **extra}, batch["ids"], method="penalty", **weights)
        penalty = Mean.of(penalty_B, batch["weight"])
        return Mean(error.total + penalty.total, error.weight), extra, {**metrics, "penalty": penalty}

    def requires(batch, params, extra):
        F = batch["ids"].shape[1]
        sizes = [*model.sizes[:2], *[model.sizes[-1]] * (F - 2)]
        return {**task.requires(batch, params, extra), "ids": fields(sizes, ("user", "item"))}

    return task._replace(loss=loss, requires=requires)


def predicted(model: Any) -> Any:
    """(params, extra, batch) to ratings, B, for Evaluation.predict."""

    def predict(params, extra, batch):
        return apply(model, params, extra, batch["ids"], None)[0][:, 0]

    return predict
