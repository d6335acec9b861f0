"""Representations without labels: two views of an image are to be alike.

SimCLR (arXiv:2002.05709) tells the two views of an image from all other images of the batch. DINO
(arXiv:2104.14294) lets a student say of one view what a teacher, the student's own average over time, says of
the other.
Dimensions: B batch, H W image, C channels, F features, D width of what is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply
from jaxmodels.tasks.keys import own_keys
from jaxmodels.tasks.ranking import first
from jaxmodels.tasks.requirements import of_images

Views = Callable[[jax.Array, jax.Array], jax.Array]  # (image_BHWC, keys_B) to changed images


class Projected(nn.Module):
    """An encoder, whose call gives features (BF), and a small network after it that is only there while it learns."""

    encoder: nn.Module
    hidden: int = 128
    width: int = 64
    layers: int = 2
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """What is compared, BD."""
        x_BF = self.encoder(x_BHWC, keys_B)
        for i in range(self.layers - 1):
            x_BF = nn.gelu(nn.Dense(self.hidden, dtype=self.dtype, name=f"hidden_{i}")(x_BF))
        return nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="out")(x_BF)


def simclr(model: nn.Module, views: Views, *, temperature: float = 0.2) -> Task:
    """Normalised temperature-scaled cross-entropy (arXiv:2002.05709, equation 1), on batches of image and weight.

    Each view is to find the other of its image among all views that the loss sees: under pmap and with
    micro-batches each part is by itself, as in batch normalisation. Padding is no view's rival. In evaluation
    an image's own pixels choose the views, and the metric is the cosine of the two, since no example may see
    another.
    """

    def project(params, extra, batch, keys_B, training):
        first, second = views(batch["image"], _fold(keys_B, 0)), views(batch["image"], _fold(keys_B, 1))
        model_keys = jnp.concatenate([_fold(keys_B, 2), _fold(keys_B, 3)]) if training else None
        z, extra = apply(
            model,
            params,
            extra,
            jnp.concatenate([first, second]),
            model_keys,
            weight=jnp.tile(batch["weight"], 2),
        )
        z = z.astype(jnp.float32)
        return z * jax.lax.rsqrt(jnp.maximum((z**2).sum(-1, keepdims=True), 1e-12)), extra

    def loss(params, extra, batch, keys_B):
        z_ND, extra = project(params, extra, batch, keys_B, True)
        B = len(keys_B)
        weight_N = jnp.tile(batch["weight"], 2)
        score_NN = z_ND @ z_ND.T / temperature
        rival_NN = (weight_N > 0) & ~jnp.eye(2 * B, dtype=bool)
        score_NN = jnp.where(rival_NN, score_NN, -1e30)
        other_N = jnp.roll(jnp.arange(2 * B), B)
        own_N = jnp.take_along_axis(score_NN, other_N[:, None], -1)[:, 0]
        loss_N = jax.nn.logsumexp(score_NN, -1) - own_N
        right_N = first(score_NN, other_N)
        metrics = {"loss": Mean.of(loss_N, weight_N), "found": Mean.of(right_N, weight_N)}
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        z_ND, _ = project(params, extra, batch, own_keys(batch["image"]), False)
        first, second = jnp.split(z_ND, 2)
        return {"likeness": Mean.of((first * second).sum(-1), batch["weight"])}

    return Task(_init(model), loss, evaluate, requires=of_images)


def dino(
    model: nn.Module,
    views: Views,
    *,
    momentum: float = 0.99,
    temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    center: float = 0.9,
) -> Task:
    """Cross-entropy of the teacher's softmax of one view and the student's of the other (arXiv:2104.14294, algorithm 1).

    extra holds {"student": its statistics, "teacher": parameters, "teacher_extra": their statistics,
    "center": (D,)}; the teacher follows by `momentum`, the centre, which is taken from its outputs, by
    `center`. Differs from the paper: two views of full size, no small crops. Batches have image and weight.
    For evaluation see simclr.
    """
    start = _init(model)

    def init(key, batch):
        params, own = start(key, batch)
        D = jax.eval_shape(lambda: model.apply({"params": params, **own}, batch["image"])).shape[-1]
        copy = jax.tree.map(jnp.array, params)
        return params, {"student": own, "teacher": copy, "teacher_extra": own, "center": jnp.zeros(D)}

    def loss(params, extra, batch, keys_B):
        both = jnp.concatenate(
            [views(batch["image"], _fold(keys_B, 0)), views(batch["image"], _fold(keys_B, 1))]
        )
        keys_N = jnp.concatenate([_fold(keys_B, 2), _fold(keys_B, 3)])
        weight_N = jnp.tile(batch["weight"], 2).astype(jnp.float32)
        seen_ND, own = apply(model, params, extra["student"], both, keys_N, weight=weight_N)
        taught_ND, other = apply(
            model, extra["teacher"], extra["teacher_extra"], both, keys_N, weight=weight_N
        )
        taught_ND = jax.lax.stop_gradient(taught_ND.astype(jnp.float32))
        wanted_ND = jax.nn.softmax((taught_ND - extra["center"]) / teacher_temperature)
        log_ND = jax.nn.log_softmax(seen_ND.astype(jnp.float32) / temperature)
        loss_N = -(jnp.roll(wanted_ND, len(keys_B), 0) * log_ND).sum(-1)
        mean_D = jnp.where(weight_N[:, None] > 0, taught_ND, 0.0).sum(0) / jnp.maximum(
            (weight_N > 0).sum(), 1
        )

        def follow(old, new):
            return momentum * old + (1 - momentum) * jax.lax.stop_gradient(new).astype(old.dtype)

        extra = {
            "student": own,
            "teacher": jax.tree.map(follow, extra["teacher"], params),
            "teacher_extra": other,
            "center": center * extra["center"] + (1 - center) * mean_D,
        }
        spread_N = -(wanted_ND * jnp.log(jnp.maximum(wanted_ND, 1e-9))).sum(-1)
        metrics = {"loss": Mean.of(loss_N, weight_N), "teacher_entropy": Mean.of(spread_N, weight_N)}
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        keys_B = own_keys(batch["image"])
        both = [views(batch["image"], _fold(keys_B, i)) for i in (0, 1)]
        z = [
            apply(model, extra["teacher"], extra["teacher_extra"], x, None)[0].astype(jnp.float32)
            for x in both
        ]
        norm_B = jnp.linalg.norm(z[0], axis=-1) * jnp.linalg.norm(z[1], axis=-1)
        return {"likeness": Mean.of((z[0] * z[1]).sum(-1) / jnp.maximum(norm_B, 1e-6), batch["weight"])}

    return Task(init, loss, evaluate, requires=of_images)


def encoded(encoder: nn.Module, part: str = "encoder") -> Callable[[Any, Any, Any], jax.Array]:
    """(params, extra, batch) to the encoder's features (BF), for Evaluation.predict; part: its name in the parameters."""

    def predict(params, extra, batch):
        own = {name: tree[part] for name, tree in extra.items() if part in tree}
        return apply(encoder, params[part], own, batch["image"], None)[0]

    return predict


def _init(model: nn.Module) -> Callable[[Any, Any], tuple[Any, Any]]:
    def init(key, batch):
        extra = dict(model.init(key, batch["image"]))
        return extra.pop("params"), extra

    return init


def _fold(keys_B: jax.Array, number: int) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (0, None))(keys_B, number)
