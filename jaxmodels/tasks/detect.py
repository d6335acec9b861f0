"""Detection by a model that predicts a class and a box at each location of an image.

Locations are assigned to boxes as in FCOS (arXiv:1904.01355, section 3): those near the box's centre, on the
level of the box's size. The target of the class's score is the overlap of the predicted box with the object
(arXiv:2006.04388, equation 4).
Dimensions: B batch, P locations, M boxes of an image, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, init_from
from jaxmodels.tasks.boxes import Detections, area, giou, iou, nms
from jaxmodels.tasks.requirements import objects

RADIUS = 1.5  # of the centre's neighbourhood, in strides


def detect(model: nn.Module, *, reach: float = 8.0, box_weight: float = 2.0) -> Task:
    """Quality focal loss of the scores and generalised IoU of the boxes, per positive location.

    A batch has image (BHWC), boxes (BM4: y0 x0 y1 x1 in pixels), classes (BM, int), present (BM, 1 or 0) and
    weight (B). The model gives DensePredictions (see models/fcos.py). reach: a level is for boxes whose
    farthest edge is half of `reach` to `reach` strides away; the finest level takes all smaller boxes, the
    coarsest all larger. box_weight: of the boxes' part. The loss is a sum over locations, divided by the
    number of positive ones, those with a box.
    """

    def measure(predicted: Any, batch: Any) -> dict[str, Mean]:
        center_P2, stride_P = predicted.center_P2, predicted.stride_P

        def one(logits_PK: Any, boxes_P4: Any, true_M4: Any, class_M: Any, present_M: Any) -> Any:
            return _losses(logits_PK, boxes_P4, true_M4, class_M, present_M, center_P2, stride_P, reach)

        score_BP, box_BP, positive_BP = jax.vmap(one)(
            predicted.logits_BPK.astype(jnp.float32),
            predicted.boxes_BP4,
            batch["boxes"],
            batch["classes"],
            batch["present"],
        )
        weight_B = batch["weight"]
        positives_B = jnp.maximum(positive_BP.sum(-1), 1.0)

        def of(x_BP):
            x_B = jnp.where(weight_B > 0, x_BP.sum(-1), 0.0)
            return Mean((x_B * weight_B).sum(), (positives_B * weight_B).sum())

        return {
            "loss": of(score_BP + box_weight * box_BP),
            "score_loss": of(score_BP),
            "box_loss": of(box_BP),
        }

    def loss(params, extra, batch, keys_B):
        predicted, extra = apply(model, params, extra, batch["image"], keys_B, weight=batch["weight"])
        metrics = measure(predicted, batch)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(apply(model, params, extra, batch["image"], None)[0], batch)

    def requires(batch, params, extra):
        def run(params, extra, image):
            return apply(model, params, extra, image, None)[0]

        predicted = jax.eval_shape(run, params, extra, batch["image"])
        return objects(batch, predicted.logits_BPK.shape[-1])

    return Task(init_from(model, "image"), loss, evaluate, requires=requires)


def predict(
    model: nn.Module, *, most: int = 100, overlap: float = 0.6, least: float = 0.05
) -> Callable[..., Detections]:
    """(params, extra, batch) to the Detections of each image, for Evaluation.predict; see boxes.nms."""

    def detections(params, extra, batch):
        H, W = batch["image"].shape[1:3]
        predicted, _ = apply(model, params, extra, batch["image"], None)
        boxes_BP4 = predicted.boxes_BP4.clip(0, jnp.array([H, W, H, W], jnp.float32))
        scores_BPK = jax.nn.sigmoid(predicted.logits_BPK.astype(jnp.float32))
        suppress = partial(nms, most=most, overlap=overlap, least=least)
        return jax.vmap(suppress)(boxes_BP4, scores_BPK)

    return detections


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
    """(loss of the scores, loss of the box, whether there is a box) at each location of one image."""
    target_P, positive_P = assign(true_M4, present_M, center_P2, stride_P, reach)
    target_P4 = true_M4[target_P]
    quality_P = jax.lax.stop_gradient(iou(boxes_P4, target_P4)) * positive_P
    target_PK = nn.one_hot(class_M[target_P], logits_PK.shape[-1]) * quality_P[:, None]
    focus_PK = jnp.abs(target_PK - jax.nn.sigmoid(logits_PK)) ** 2
    score_P = (focus_PK * optax.sigmoid_binary_cross_entropy(logits_PK, target_PK)).sum(-1)
    return score_P, jnp.where(positive_P, 1 - giou(boxes_P4, target_P4), 0.0), positive_P


def assign(
    true_M4: jax.Array, present_M: jax.Array, center_P2: jax.Array, stride_P: jax.Array, reach: float
) -> tuple[jax.Array, jax.Array]:
    """(index of each location's box, whether there is one); of several boxes the smallest."""
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
    """(detected, true) of each image, as NumPy without padding, from the arguments of Evaluation.score.

    An image whose "weight" is 0 is skipped.
    """
    found = []
    for detections, batch in zip(predictions, batches, strict=True):
        for i in range(len(detections.number)):
            if "weight" in batch and not batch["weight"][i] > 0:
                continue
            n, present = int(detections.number[i]), batch["present"][i] > 0
            detected = {name: getattr(detections, name)[i][:n] for name in ("boxes", "scores", "classes")}
            true = {name: batch[name][i][present] for name in ("boxes", "classes")}
            found.append((detected, true))
    return found
