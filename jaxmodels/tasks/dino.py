"""DINO: features without labels; the teacher is the student averaged over time (arXiv:2104.14294).

The student's output for one view of an image is trained towards the teacher's output for another view.
Dimensions: B batch, N the 2 B views, H W image, C channels, D width of a projection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.keys import fold
from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, init_from
from jaxmodels.tasks.keys import content_keys
from jaxmodels.tasks.requirements import of_images

Views = Callable[[jax.Array, jax.Array], jax.Array]  # (image_BHWC, keys_B) to changed images


def dino(
    model: nn.Module,
    views: Views,
    *,
    momentum: float = 0.99,
    temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    center: float = 0.9,
) -> Task:
    """Cross-entropy of the teacher's softmax of one view and the student's of the other (algorithm 1).

    extra holds {"student": its statistics, "teacher": parameters, "teacher_extra": their statistics,
    "center": (D,)}. The teacher is a moving average of the student, with decay `momentum`; the centre is a
    moving average of the teacher's outputs, with decay `center`. Differs from the paper: two views of full
    size, no small crops. Batches have image and weight. In evaluation an image's own pixels choose the views,
    and the metric "likeness" is the cosine of the teacher's two outputs.
    """
    init_student = init_from(model, "image")

    def init(key, batch):
        params, statistics = init_student(key, batch)
        D = jax.eval_shape(lambda: model.apply({"params": params, **statistics}, batch["image"])).shape[-1]
        copy = jax.tree.map(jnp.array, params)
        extra = {"student": statistics, "teacher": copy, "teacher_extra": statistics, "center": jnp.zeros(D)}
        return params, extra

    def loss(params, extra, batch, keys_B):
        both = jnp.concatenate([views(batch["image"], fold(keys_B, i)) for i in (0, 1)])
        keys_N = jnp.concatenate([fold(keys_B, 2), fold(keys_B, 3)])
        weight_N = jnp.tile(batch["weight"], 2).astype(jnp.float32)
        student_ND, student_extra = apply(model, params, extra["student"], both, keys_N, weight=weight_N)
        teacher = cast_like(extra["teacher"], params)
        teacher_ND, teacher_extra = apply(
            model, teacher, extra["teacher_extra"], both, keys_N, weight=weight_N
        )
        teacher_ND = jax.lax.stop_gradient(teacher_ND.astype(jnp.float32))
        target_ND = jax.nn.softmax((teacher_ND - extra["center"]) / teacher_temperature)
        log_ND = jax.nn.log_softmax(student_ND.astype(jnp.float32) / temperature)
        loss_N = -(jnp.roll(target_ND, len(keys_B), 0) * log_ND).sum(-1)
        real_N = weight_N > 0
        mean_D = jnp.where(real_N[:, None], teacher_ND, 0.0).sum(0) / jnp.maximum(real_N.sum(), 1)

        def follow(old, new):
            return momentum * old + (1 - momentum) * jax.lax.stop_gradient(new).astype(old.dtype)

        followed = {
            "student": student_extra,
            "teacher": jax.tree.map(follow, extra["teacher"], params),
            "teacher_extra": teacher_extra,
            "center": center * extra["center"] + (1 - center) * mean_D,
        }
        # A batch of padding alone has nothing to follow.
        extra = jax.tree.map(lambda new, old: jnp.where(real_N.any(), new, old), followed, extra)
        entropy_N = -(target_ND * jnp.log(jnp.maximum(target_ND, 1e-9))).sum(-1)
        metrics = {"loss": Mean.of(loss_N, weight_N), "teacher_entropy": Mean.of(entropy_N, weight_N)}
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        keys_B = content_keys(batch["image"])
        both = [views(batch["image"], fold(keys_B, i)) for i in (0, 1)]

        def output(image):
            teacher = cast_like(extra["teacher"], params)
            return apply(model, teacher, extra["teacher_extra"], image, None)[0].astype(jnp.float32)

        z = [output(image) for image in both]
        norm_B = jnp.linalg.norm(z[0], axis=-1) * jnp.linalg.norm(z[1], axis=-1)
        return {"likeness": Mean.of((z[0] * z[1]).sum(-1) / jnp.maximum(norm_B, 1e-6), batch["weight"])}

    return Task(init, loss, evaluate, requires=of_images)


def cast_like(teacher: Any, student: Any) -> Any:
    """The teacher's parameters in the student's types, so that mixed precision applies to it too."""
    return jax.tree.map(lambda old, new: old.astype(new.dtype), teacher, student)
