"""Retrieval with the batch's other items as negatives, corrected for popularity (Yi et al., RecSys 2019).

Dimensions: B examples, D width of vectors.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.task import Mean, Requirement, Task
from jaxmodels.tasks.ranking import first
from jaxmodels.tasks.requirements import finite, weights


def in_batch(model: Any) -> Task:
    """Softmax cross-entropy of each user's item among all items of the batch (sampled softmax, equation 4).

    Batches have "user" and "item" (B, int), "log_frequency" (B) and "weight". A popular item is in many
    batches, and would be pushed down too often; so from each score the log of the item's probability to be in
    a batch's row is subtracted ("log_frequency"; a constant added to all changes nothing). An item that is
    the row's own, in another row, is no negative, and neither is padding.

    The negatives are those that the loss sees. Under jit that is the global batch, however it is split over
    the devices of a mesh, so any mesh computes the same; under pmap and with micro-batches each part is by
    itself. In evaluation no example may see another, so the metric is the score of the own item.
    """

    def vectors(params, extra, batch, keys_B):
        return model.apply({"params": params, **extra}, batch["user"], batch["item"], keys_B)

    def init(key, batch):
        extra = dict(model.init(key, batch["user"], batch["item"]))
        return extra.pop("params"), extra

    def loss(params, extra, batch, keys_B):
        user_BD, item_BD = vectors(params, extra, batch, keys_B)
        score_BB = (user_BD @ item_BD.T).astype(jnp.float32)
        real_B = batch["weight"] > 0
        score_BB -= jnp.where(real_B, batch["log_frequency"], 0.0).astype(jnp.float32)
        itself_BB = jnp.eye(len(real_B), dtype=bool)
        rival_BB = real_B & (batch["item"][:, None] != batch["item"])
        score_BB = jnp.where(itself_BB | rival_BB, score_BB, -1e30)
        own_B = jnp.diagonal(score_BB)
        loss_B = jnp.where(real_B, jax.nn.logsumexp(score_BB, -1) - own_B, 0.0)
        found_B = first(score_BB, jnp.arange(len(real_B)))
        metrics = {"loss": Mean.of(loss_B, batch["weight"]), "found": Mean.of(found_B, batch["weight"])}
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        user_BD, item_BD = vectors(params, extra, batch, None)
        return {"score": Mean.of(jnp.einsum("BD,BD->B", user_BD, item_BD), batch["weight"])}

    def requires(batch, params, extra):
        do = "Number them as jaxmodels.data.interactions does"
        index = Requirement("the index of a user or an item", do, integer=True, low=0, shape=())
        return {
            "user": index._replace(where=("weight",)),
            "item": index._replace(where=("weight",)),
            "log_frequency": finite("the log of how often each item is drawn", ()),
            "weight": weights(),
        }

    return Task(init, loss, evaluate, requires=requires)
