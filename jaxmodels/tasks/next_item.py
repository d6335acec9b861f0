"""Recommendation of the next item: a user's actions are scored against the one that followed and others.

The model maps "inputs" (BT, int; an item's index + 1, 0 is padding) to a vector after each action, and has
item_vectors and table, as jaxmodels.models.sasrec. Batches have "targets" of the same shape, and "weight"
(BT); with "segments" a row holds several users, as PackedPipeline makes them. What is drawn in evaluation
depends on the example's actions alone.
Dimensions: B batch, T actions, D width, V items, N items drawn.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.keys import fold
from jaxmodels.task import Mean, Requirement, Task
from jaxmodels.tasks.apply import apply, call_options, init_from
from jaxmodels.tasks.keys import content_keys
from jaxmodels.tasks.requirements import segments, tokens, weights

DRAWS = 4  # of one negative: the first that is none of the user's items counts


def next_item(model: Any) -> Task:
    """Binary cross-entropy of the next item against one drawn at random (arXiv:1808.09781, equation 6).

    At each position the item is drawn anew, uniformly from those that are not among the example's actions.
    The loss is the sum of both terms.
    """

    def measure(params, extra, x_BTD, batch, keys_B):
        T = batch["targets"].shape[1]
        draws_BTN = 1 + _uniform(fold(keys_B, 2**17), (T, DRAWS), model.items)
        own_BS = jnp.concatenate([batch["inputs"], batch["targets"]], 1)
        new_BTN = ~(draws_BTN[..., None] == own_BS[:, None, None]).any(-1)
        first_BT1 = new_BTN.argmax(-1)[..., None]
        negative_BT = jnp.take_along_axis(draws_BTN, first_BT1, -1)[..., 0]
        fresh_BT = jnp.take_along_axis(new_BTN, first_BT1, -1)[..., 0]
        score_BT, rival_BT = (
            jnp.einsum("BTD,BTD->BT", x_BTD, _vectors(model, params, extra, items_BT)).astype(jnp.float32)
            for items_BT in (batch["targets"], negative_BT)
        )
        loss_BT = jax.nn.softplus(-score_BT) + jnp.where(fresh_BT, jax.nn.softplus(rival_BT), 0.0)
        above_BT = jnp.where(score_BT == rival_BT, 0.5, score_BT > rival_BT)
        values = {"loss": loss_BT, "above": above_BT}
        return {name: Mean.of(value_BT, batch["weight"]) for name, value_BT in values.items()}

    return _task(model, measure)


def next_item_softmax(model: Any, *, negatives: int, popularity_V: np.ndarray | None = None) -> Task:
    """Cross-entropy of the next item among itself and `negatives` items drawn for each example.

    Sampled softmax: a drawn item's score is lowered by the log of the expected number of its draws, so that
    the sum of exponentials is an unbiased estimate of that over all items (Bengio and Senécal, 2008,
    importance sampling). A draw that is the target does not count, as the target is in the sum already.

    popularity_V: how often each item is to be drawn, relative to others; by default all are as often.
    """
    q_V = np.ones(model.items) if popularity_V is None else np.asarray(popularity_V, np.float64)
    if q_V.shape != (model.items,) or not (np.isfinite(q_V) & (q_V >= 0)).all() or not q_V.sum():
        raise ValueError(
            f"next_item_softmax: got popularity_V of shape {q_V.shape}; expected {model.items} numbers of at "
            "least 0, not all 0. Give one for each item of the model"
        )
    q_V = q_V / q_V.sum()
    end_V = np.cumsum(q_V).astype(np.float32)
    log_q_V = np.log(np.maximum(negatives * q_V, 1e-12)).astype(np.float32)

    def measure(params, extra, x_BTD, batch, keys_B):
        u_BN = jax.vmap(lambda key: jax.random.uniform(key, (negatives,)))(fold(keys_B, 2**17))
        draw_BN = jnp.searchsorted(jnp.asarray(end_V), u_BN, side="right").clip(0, model.items - 1)
        target_BT = jnp.maximum(batch["targets"] - 1, 0)
        own_BT = jnp.einsum("BTD,BTD->BT", x_BTD, _vectors(model, params, extra, target_BT + 1))
        other_BTN = jnp.einsum("BTD,BND->BTN", x_BTD, _vectors(model, params, extra, draw_BN + 1))
        own_BT = own_BT.astype(jnp.float32)
        other_BTN = other_BTN.astype(jnp.float32) - jnp.asarray(log_q_V)[draw_BN][:, None]
        hit_BTN = draw_BN[:, None] == target_BT[..., None]
        logits = jnp.concatenate([own_BT[..., None], jnp.where(hit_BTN, -1e30, other_BTN)], -1)
        loss_BT = jax.nn.logsumexp(logits, -1) - own_BT
        return {"loss": Mean.of(loss_BT, batch["weight"])}

    return _task(model, measure)


def scores_of_items(model: Any) -> Any:
    """(params, extra, batch) to the scores of all items after the last action of "inputs", B x V."""

    def scores(params, extra, batch):
        x_BTD, _ = apply(model, params, extra, batch["inputs"], None)
        table_VD = model.apply({"params": params, **extra}, method="table")
        return x_BTD[:, -1] @ table_VD.astype(x_BTD.dtype).T

    return scores


def _task(model: Any, measure: Any) -> Task:
    def loss(params, extra, batch, keys_B):
        x_BTD, extra = apply(model, params, extra, batch["inputs"], keys_B, **_options(batch))
        metrics = measure(params, extra, x_BTD, batch, keys_B)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        x_BTD, _ = apply(model, params, extra, batch["inputs"], None, **_options(batch))
        return measure(params, extra, x_BTD, batch, content_keys(batch["inputs"]))

    def requires(batch, params, extra) -> dict[str, Requirement]:
        shape = batch["inputs"].shape[1:]
        items = tokens(model.items + 1)._replace(
            what=f"the model's {model.items:,} items as their index + 1, and 0 for padding",
            do="Number the items as jaxmodels.data.interactions does, or give the model more items",
        )
        return {
            "inputs": items._replace(shape=shape),
            "targets": items._replace(shape=shape, where=("weight",)),
            "weight": weights(shape),
            "segments": segments(shape),
        }

    return Task(init_from(model, "inputs"), loss, evaluate, requires=requires)


def _options(batch: Any) -> dict[str, Any]:
    return {name: x for name, x in call_options(batch).items() if name != "weight"}


def _vectors(model: Any, params: Any, extra: Any, items: jax.Array) -> jax.Array:
    return model.apply({"params": params, **extra}, items, method="item_vectors")


def _uniform(keys_B: jax.Array, shape: tuple[int, ...], count: int) -> jax.Array:
    """Integers from 0 to below count, (B, *shape)."""
    return jax.vmap(lambda key: jax.random.randint(key, shape, 0, count))(keys_B)
