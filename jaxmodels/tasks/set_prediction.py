"""Detection as set prediction: each object is matched with one query, the others predict "no object".

Source: DETR, arXiv:2005.12872. The matching of least cost is compiled with the step (the Hungarian algorithm,
by optax). Differs from the paper: the class loss is divided by the number of objects, as the box loss is, and
not by the weights of all queries.
Dimensions: B batch, Q queries, M boxes of an image, K classes, L layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, init_from
from jaxmodels.tasks.boxes import Detections, giou, to_centers
from jaxmodels.tasks.requirements import objects

L1, GIOU = 5.0, 2.0  # weights of the boxes' two parts


def set_prediction(model: nn.Module, *, nothing: float = 0.1, auxiliary: bool = True) -> Task:
    """Cross-entropy of the classes, and L1 distance and generalised IoU of the matched boxes, per object.

    A batch has image (BHWC), boxes (BM4: y0 x0 y1 x1 in pixels), classes (BM, int), present (BM, 1 or 0) and
    weight (B). The model gives Queries (see models/detr.py), no fewer than M. nothing: weight of the class
    "no object". auxiliary: whether every layer of the decoder has the loss, or the last alone.
    """

    def measure(queries: Any, batch: Any, layers: slice) -> dict[str, Mean]:
        H, W = batch["image"].shape[1:3]
        scale = jnp.array([H, W, H, W], jnp.float32)

        def one(logits_QK, boxes_Q4, true_M4, class_M, present_M):
            return _losses(
                logits_QK.astype(jnp.float32), boxes_Q4 / scale, true_M4 / scale, class_M, present_M, nothing
            )

        def of_layer(logits_BQK, boxes_BQ4):
            return jax.vmap(one)(logits_BQK, boxes_BQ4, batch["boxes"], batch["classes"], batch["present"])

        class_LB, box_LB = jax.vmap(of_layer)(queries.logits_LBQK[layers], queries.boxes_LBQ4[layers])
        weight_B = batch["weight"]
        objects_B = jnp.where(weight_B > 0, jnp.maximum(batch["present"].sum(-1), 1.0), 0.0)

        def of(x_LB):
            x_B = jnp.where(weight_B > 0, x_LB.sum(0), 0.0)
            return Mean((x_B * weight_B).sum(), (objects_B * weight_B).sum())

        return {"loss": of(class_LB + box_LB), "class_loss": of(class_LB), "box_loss": of(box_LB)}

    def loss(params, extra, batch, keys_B):
        queries, extra = apply(model, params, extra, batch["image"], keys_B, weight=batch["weight"])
        metrics = measure(queries, batch, slice(None) if auxiliary else slice(-1, None))
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(apply(model, params, extra, batch["image"], None)[0], batch, slice(-1, None))

    def requires(batch, params, extra):
        def run(params, extra, image):
            return apply(model, params, extra, image, None)[0]

        queries = jax.eval_shape(run, params, extra, batch["image"])
        return objects(batch, queries.logits_LBQK.shape[-1] - 1)

    return Task(init_from(model, "image"), loss, evaluate, requires=requires)


def predict(model: nn.Module, *, most: int = 100) -> Callable[..., Detections]:
    """(params, extra, batch) to the Detections of each image, for Evaluation.predict.

    Every query's most probable class, the most probable first. Without suppression: queries are trained not
    to find the same object.
    """

    def detections(params, extra, batch):
        H, W = batch["image"].shape[1:3]
        queries, _ = apply(model, params, extra, batch["image"], None)
        scores_BQK = jax.nn.softmax(queries.logits_LBQK[-1].astype(jnp.float32))[..., :-1]
        boxes_BQ4 = queries.boxes_LBQ4[-1].clip(0, jnp.array([H, W, H, W], jnp.float32))
        score_BQ, order_BQ = jax.lax.top_k(scores_BQK.max(-1), min(most, scores_BQK.shape[1]))
        class_BQ = jnp.take_along_axis(scores_BQK.argmax(-1), order_BQ, 1)
        number_B = jnp.full(score_BQ.shape[0], score_BQ.shape[1])
        boxes_BQ4 = jnp.take_along_axis(boxes_BQ4, order_BQ[..., None], 1)
        return Detections(boxes_BQ4, score_BQ, class_BQ, number_B)

    return detections


def assign(cost_QM: jax.Array, present_M: jax.Array) -> jax.Array:
    """The query of each box (M), all different, of least total cost over the present boxes (equation 1)."""
    cost_QM = jnp.where(present_M > 0, cost_QM, 0.0)  # any query left over goes to the absent boxes
    cost_QM = jnp.nan_to_num(cost_QM)  # with a NaN the algorithm would not end
    query_N, box_N = optax.assignment.hungarian_algorithm(jax.lax.stop_gradient(cost_QM))
    return jnp.zeros(len(present_M), query_N.dtype).at[box_N].set(query_N)


def _losses(
    logits_QK: Any, boxes_Q4: Any, true_M4: Any, class_M: Any, present_M: Any, nothing: float
) -> tuple[Any, Any]:
    """(sum of the class loss, sum of the box loss) of one image; boxes in fractions of the image."""
    if len(logits_QK) < len(present_M):
        raise ValueError(
            f"set_prediction: got {len(logits_QK)} queries for up to {len(present_M)} boxes of an image; "
            "expected no fewer queries than boxes. Give the model more."
        )
    class_M = jnp.where(present_M > 0, class_M, 0)
    apart_QM = jnp.abs(to_centers(boxes_Q4)[:, None] - to_centers(true_M4)).sum(-1)
    overlap_QM = giou(boxes_Q4[:, None], true_M4)
    cost_QM = L1 * apart_QM - GIOU * overlap_QM - jax.nn.softmax(logits_QK)[:, class_M]
    query_M = assign(cost_QM, present_M)

    last = logits_QK.shape[-1] - 1
    target_Q = jnp.full(len(logits_QK), last).at[query_M].set(jnp.where(present_M > 0, class_M, last))
    miss_Q = optax.softmax_cross_entropy_with_integer_labels(logits_QK, target_Q)
    class_loss = (miss_Q * jnp.where(target_Q == last, nothing, 1.0)).sum()
    index = (query_M, jnp.arange(len(present_M)))
    box_loss = jnp.where(present_M > 0, L1 * apart_QM[index] + GIOU * (1 - overlap_QM[index]), 0.0).sum()
    return class_loss, box_loss
