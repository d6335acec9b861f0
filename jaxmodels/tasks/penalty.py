"""Penalties of what an example uses, as in matrix factorization (Koren, Bell, Volinsky, 2009, equation 5).

Dimensions: B examples, F columns of the inputs.
"""

from __future__ import annotations

from typing import Any

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.requirements import fields


def penalised(
    task: Task, model: Any, *, factors: float = 0.1, biases: float = 0.05, attributes: float = 0.01
) -> Task:
    """The task of a model of "ids" (BF, int; user, item and attributes), with a penalty in its training loss.

    To each example's loss is added what it uses, so that what is used often is penalised often: `factors`
    times the squared lengths of both vectors, and likewise for biases and attributes. The model has penalty()
    and sizes, as jaxmodels.models.factorization. Metrics stay those of the task, with "penalty" besides.
    """

    def loss(params, extra, batch, keys_B):
        own, extra, metrics = task.loss(params, extra, batch, keys_B)
        by = {"factors": factors, "biases": biases, "attributes": attributes}
        penalty_B = model.apply({"params": params, **extra}, batch["ids"], method="penalty", **by)
        penalty = Mean.of(penalty_B, batch["weight"])
        return Mean(own.total + penalty.total, own.weight), extra, {**metrics, "penalty": penalty}

    def requires(batch, params, extra):
        F = batch["ids"].shape[1]
        sizes = [*model.sizes[:2], *[model.sizes[-1]] * (F - 2)]
        return {**task.requires(batch, params, extra), "ids": fields(sizes, ("user", "item"))}

    return task._replace(loss=loss, requires=requires)
