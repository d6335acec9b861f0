"""Metric learning: embeddings of one face, character or speaker lie close, also of classes never trained on.

ArcFace (arXiv:1801.07698) learns them as a classification of the training classes, with a margin between
classes; the triplet loss (arXiv:1503.03832) by comparisons within a batch. Where a batch has "segments" (BT,
int; 0 is padding), the model gets them as segments_BT.
Dimensions: B batch, D width of an embedding, K training classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmodels.task import Mean, Requirement, Task
from jaxmodels.tasks.apply import apply, call_options, init_from, table_sizes
from jaxmodels.tasks.ranking import first
from jaxmodels.tasks.requirements import inputs_of, labels, weights


def normalised(x_BD: jax.Array) -> jax.Array:
    """Each row scaled to length 1, in float32."""
    x_BD = x_BD.astype(jnp.float32)
    return x_BD * jax.lax.rsqrt(jnp.maximum((x_BD**2).sum(-1, keepdims=True), 1e-12))


def arcface(
    model: nn.Module, classes: int, *, margin: float = 0.5, scale: float = 30.0, inputs: str = "image"
) -> Task:
    """Softmax over scale x cosine of embedding and class, with a margin (arXiv:1801.07698, equation 3).

    `margin` radians are added to the angle to the own class. Batches have inputs, label (int, below classes)
    and weight. A label below 0 stands for a class that is not trained on: it counts in no metric, and a
    metric in which no example counts is absent. The parameters are {"model": …, "classes": (classes, D)}.
    """
    init_model = init_from(model, inputs)

    def init(key, batch):
        model_key, classes_key = jax.random.split(key)
        params, extra = init_model(model_key, batch)
        D = jax.eval_shape(lambda: model.apply({"params": params, **extra}, batch[inputs])).shape[-1]
        centers_KD = jax.random.normal(classes_key, (classes, D)) / math.sqrt(D)
        return {"model": params, "classes": centers_KD}, extra

    def measure(params, x_BD, batch, margin):
        cos_BK = normalised(x_BD) @ normalised(params["classes"]).T
        own_BK = nn.one_hot(batch["label"], classes)
        # cos(t + m) where t + m is below pi; beyond, a line that goes on falling, as in the authors' code.
        sin_BK = jnp.sqrt(jnp.maximum(1 - cos_BK**2, 1e-7))
        moved_BK = jnp.where(
            cos_BK > -jnp.cos(margin),
            cos_BK * jnp.cos(margin) - sin_BK * jnp.sin(margin),
            cos_BK - margin * jnp.sin(margin),
        )
        logits_BK = scale * jnp.where(own_BK > 0, moved_BK, cos_BK)
        loss_B = optax.softmax_cross_entropy(logits_BK, own_BK)
        weight_B = batch["weight"] * (batch["label"] >= 0)
        values = {"loss": loss_B, "accuracy": first(cos_BK, batch["label"])}
        return {name: Mean.of(x_B, weight_B) for name, x_B in values.items()}

    def loss(params, extra, batch, keys_B):
        x_BD, extra = apply(model, params["model"], extra, batch[inputs], keys_B, **call_options(batch))
        metrics = measure(params, x_BD, batch, margin)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        x_BD, _ = apply(model, params["model"], extra, batch[inputs], None, **call_options(batch))
        return measure(params, x_BD, batch, 0.0)

    def requires(batch, params, extra):
        known = f"the {classes} classes that are trained on, or below 0 for another"
        label = labels(classes)._replace(what=known, low=-math.inf)
        return {**_seen(model, inputs, batch, params["model"], extra), "label": label}

    return Task(init, loss, evaluate, _counted, requires=requires)


def triplet(model: nn.Module, *, margin: float = 0.2, inputs: str = "image") -> Task:
    """Triplet loss with batch-hard mining, the mean over anchors (arXiv:1703.07737, equation 5).

    max(0, distance to the farthest example of the own label - distance to the nearest of another + margin).
    Both are
    chosen among the examples of the batch that the loss sees: under pmap and with micro-batches each part is
    by itself. An anchor does not count where no other example has its label, or none has another. Batches
    have inputs, label and weight; distances are between embeddings of length 1. "active" is the part of the
    triplets whose loss is above 0.
    """

    def measure(x_BD, batch):
        x_BD = normalised(x_BD)
        real_B = batch["weight"] > 0
        distance_BB = jnp.sqrt(jnp.maximum(2 - 2 * x_BD @ x_BD.T, 1e-12))
        same_BB = (batch["label"][:, None] == batch["label"]) & real_B
        positive_BB = same_BB & ~jnp.eye(len(x_BD), dtype=bool)
        negative_BB = ~same_BB & real_B
        far_B = jnp.where(positive_BB, distance_BB, -jnp.inf).max(-1)
        near_B = jnp.where(negative_BB, distance_BB, jnp.inf).min(-1)
        weight_B = batch["weight"] * positive_BB.any(-1) * negative_BB.any(-1)
        loss_B = jnp.where(weight_B > 0, jax.nn.relu(far_B - near_B + margin), 0.0)
        return {"loss": Mean.of(loss_B, weight_B), "active": Mean.of(loss_B > 0, weight_B)}

    def loss(params, extra, batch, keys_B):
        x_BD, extra = apply(model, params, extra, batch[inputs], keys_B, **call_options(batch))
        metrics = measure(x_BD, batch)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        # In evaluation no example may depend on another, so there are no triplets.
        x_BD, _ = apply(model, params, extra, batch[inputs], None, **call_options(batch))
        norm_B = jnp.linalg.norm(x_BD.astype(jnp.float32), axis=-1)
        return {"norm": Mean.of(norm_B, batch["weight"])}

    def requires(batch, params, extra):
        label = labels(1)._replace(
            what="numbers that are the same for the same thing", low=-math.inf, high=math.inf
        )
        return {**_seen(model, inputs, batch, params, extra), "label": label}

    return Task(init_from(model, inputs), loss, evaluate, _counted, requires=requires)


def _seen(model: nn.Module, inputs: str, batch: Any, params: Any, extra: Any) -> dict[str, Requirement]:
    """The requirements of an encoder's inputs and of the weights."""

    def run(params, extra, batch):
        return apply(model, params, extra, batch[inputs], None, **call_options(batch))[0]

    _, tables = table_sizes(run, params, extra, batch)
    return {inputs: inputs_of(batch[inputs], tables.get(inputs)), "weight": weights()}


def embeddings(
    model: nn.Module, *, inputs: str = "image", part: str = ""
) -> Callable[[Any, Any, Any], jax.Array]:
    """(params, extra, batch) to embeddings of length 1 (BD), for Evaluation.predict.

    part: the model's name in the parameters, such as "model" for arcface; "" where all are the model's own.
    """

    def predict(params, extra, batch):
        own = params[part] if part else params
        x_BD, _ = apply(model, own, extra, batch[inputs], None, **call_options(batch))
        return normalised(x_BD)

    return predict


def _counted(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics in which some example counts."""
    return {name: x for name, x in metrics.items() if not math.isnan(x)}
