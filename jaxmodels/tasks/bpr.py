"""Bayesian personalised ranking: an item that a user has had scores above one that he has not.

Rendle et al., UAI 2009. Dimensions: B examples, n negatives of each.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.keys import fold
from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, init_from
from jaxmodels.tasks.requirements import fields, weights


def bpr(model: Any) -> Task:
    """Mean of -ln σ(score of the item - score of a negative) over an example's negatives (BPR-Opt).

    Batches have "ids" (B x 2; the user and the item), "negatives" (Bn, items, as jaxmodels.data.negatives
    draws them) and "weight". The model maps ids to scores, B x 1, and has sizes. "above" is the part of the
    negatives that score below the item, ties by half: the area under the ROC curve (section 3.1).
    """

    def measure(params, extra, batch, keys_B):
        item_B1, extra = apply(model, params, extra, batch["ids"], keys_B)
        negatives_nB = batch["negatives"].T

        def rival(n, item_B):
            ids_B2 = jnp.stack([jnp.asarray(batch["ids"])[:, 0], item_B], 1)
            return apply(model, params, extra, ids_B2, None if keys_B is None else fold(keys_B, n))[0][:, 0]

        rivals_nB = jnp.stack([rival(n + 1, item_B) for n, item_B in enumerate(negatives_nB)])
        margin_nB = (item_B1[:, 0] - rivals_nB).astype(jnp.float32)
        above_nB = jnp.where(margin_nB == 0, 0.5, margin_nB > 0)
        values = {"loss": jax.nn.softplus(-margin_nB).mean(0), "above": above_nB.mean(0)}
        return {name: Mean.of(value_B, batch["weight"]) for name, value_B in values.items()}, extra

    def loss(params, extra, batch, keys_B):
        metrics, extra = measure(params, extra, batch, keys_B)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, None)[0]

    def requires(batch, params, extra):
        required = {"ids": fields(model.sizes, ("user", "item")), "weight": weights()}
        if "negatives" not in batch:  # they may be drawn after the data is read
            return required
        items = fields([model.sizes[1]] * batch["negatives"].shape[1], key="negatives")
        return {**required, "negatives": items}

    return Task(init_from(model, "ids"), loss, evaluate, requires=requires)
