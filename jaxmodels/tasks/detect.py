"""Detection of objects by a model that says at each place of an image which class is there, and its box.

Which place is to find which box follows FCOS (arXiv:1904.01355, section 3): those near the box's centre, on
the level of the box's size. The score of a class is to be the overlap of the place's box with the object
(arXiv:2006.04388, equation 4).
Dimensions: B batch, P places, M boxes of an image, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, init_from
from jaxmodels.tasks.boxes import Detections, area, giou, iou, nms
from jaxmodels.tasks.requirements import objects

RADIUS = 1.5  # of the centre's neighbourhood, in places


def detect(model: nn.Module, *, reach: float = 8.0, box_weight: float = 2.0) -> Task:
    """Quality focal loss of the scores and generalised IoU of the boxes, per found place, on batches of images with boxes.

    A batch has image (BHWC), boxes (BM4: y0 x0 y1 x1 in pixels), classes (BM, int), present (BM, 1 or 0) and
    weight (B). The model gives DensePredictions (see models/fcos.py). reach: a level is for boxes whose farthest edge
    is from half of `reach` to `reach` strides away; the finest takes all smaller ones, the coarsest all
    larger. box_weight: of the boxes' part. The loss is a sum over places, divided by the number of places
    that are to find something.
    """

    def measure(places: Any, batch: Any) -> dict[str, Mean]:
        def one(*parts: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
            logits_PK, boxes_P4, true_M4, class_M, present_M = parts
            return _losses(
                logits_PK, boxes_P4, true_M4, class_M, present_M, places.center_P2, places.stride_P, reach
            )

        score_BP, box_BP, positive_BP = jax.vmap(one)(
            places.logits_BPK.astype(jnp.float32),
            places.boxes_BP4,
            batch["boxes"],
            batch["classes"],
            batch["present"],
        )
        weight_B = batch["weight"]
        found_B = jnp.maximum(positive_BP.sum(-1), 1.0)

        def of(x_BP):
            return Mean(
                (jnp.where(weight_B > 0, x_BP.sum(-1), 0.0) * weight_B).sum(), (found_B * weight_B).sum()
            )

        return {
            "loss": of(score_BP + box_weight * box_BP),
            "score_loss": of(score_BP),
            "box_loss": of(box_BP),
        }

    def loss(params, extra, batch, keys_B):
        places, extra = apply(model, params, extra, batch["image"], keys_B, weight=batch["weight"])
        metrics = measure(places, batch)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(apply(model, params, extra, batch["image"], None)[0], batch)

    def requires(batch, params, extra):
        def run(params, extra, image):
            return apply(model, params, extra, image, None)[0]

        found = jax.eval_shape(run, params, extra, batch["image"])
        return objects(batch, found.logits_BPK.shape[-1])

    return Task(init_from(model, "image"), loss, evaluate, requires=requires)


def predict(
    model: nn.Module, *, most: int = 100, overlap: float = 0.6, least: float = 0.05
) -> Callable[..., Detections]:
    """(params, extra, batch) to the Detections of each image, for Evaluation.predict; see boxes.nms."""

    def found(params, extra, batch):
        H, W = batch["image"].shape[1:3]
        places, _ = apply(model, params, extra, batch["image"], None)
        boxes_BP4 = places.boxes_BP4.clip(0, jnp.array([H, W, H, W], jnp.float32))
        scores_BPK = jax.nn.sigmoid(places.logits_BPK.astype(jnp.float32))
        return jax.vmap(lambda boxes, scores: nms(boxes, scores, most=most, overlap=overlap, least=least))(
            boxes_BP4, scores_BPK
        )

    return found


def _losses(
    logits_PK: Any,
    boxes_P4: Any,
    true_M4: Any,
    class_M: Any,
    present_M: Any,
    center_P2: Any,
    stride_P: Any,
    reach: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(loss of the scores, of the box, whether there is one to find) at each place of one image."""
    target_P, positive_P = assign(true_M4, present_M, center_P2, stride_P, reach)
    wanted_P4 = true_M4[target_P]
    quality_P = jax.lax.stop_gradient(iou(boxes_P4, wanted_P4)) * positive_P
    wanted_PK = nn.one_hot(class_M[target_P], logits_PK.shape[-1]) * quality_P[:, None]
    miss_PK = jnp.abs(wanted_PK - jax.nn.sigmoid(logits_PK)) ** 2
    score_P = (miss_PK * optax.sigmoid_binary_cross_entropy(logits_PK, wanted_PK)).sum(-1)
    return score_P, jnp.where(positive_P, 1 - giou(boxes_P4, wanted_P4), 0.0), positive_P


def assign(
    true_M4: jax.Array, present_M: jax.Array, center_P2: jax.Array, stride_P: jax.Array, reach: float
) -> tuple[jax.Array, jax.Array]:
    """(number of the box that each place is to find, whether there is one); of several boxes the smallest."""
    before_PM2, after_PM2 = center_P2[:, None] - true_M4[:, :2], true_M4[:, 2:] - center_P2[:, None]
    edges_PM4 = jnp.concatenate([before_PM2, after_PM2], -1)
    inside_PM = edges_PM4.min(-1) > 0
    middle_M2 = (true_M4[:, :2] + true_M4[:, 2:]) / 2
    near_PM = (jnp.abs(center_P2[:, None] - middle_M2) < RADIUS * stride_P[:, None, None]).all(-1)
    far_PM = edges_PM4.max(-1)
    high_P = jnp.where(stride_P < stride_P.max(), reach * stride_P, jnp.inf)
    low_P = jnp.where(stride_P > stride_P.min(), reach * stride_P / 2, 0.0)
    size_PM = (far_PM > low_P[:, None]) & (far_PM <= high_P[:, None])
    candidate_PM = inside_PM & near_PM & size_PM & (present_M > 0)
    area_PM = jnp.where(candidate_PM, area(true_M4), jnp.inf)
    return area_PM.argmin(-1), candidate_PM.any(-1)


def pairs(predictions: Sequence[Any], batches: Sequence[Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(found, true) of each image, as NumPy without padding, from what Evaluation.score and pictures get.

    An image whose "weight" is 0 is left out.
    """
    out = []
    for found, batch in zip(predictions, batches, strict=True):
        for i in range(len(found.number)):
            if "weight" in batch and not batch["weight"][i] > 0:
                continue
            n, real = int(found.number[i]), batch["present"][i] > 0
            got = {
                "boxes": found.boxes[i][:n],
                "scores": found.scores[i][:n],
                "classes": found.classes[i][:n],
            }
            out.append((got, {"boxes": batch["boxes"][i][real], "classes": batch["classes"][i][real]}))
    return out
