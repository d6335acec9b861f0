"""Diffusion in continuous time: images from noise, by predicting the added noise (arXiv:2006.11239).

    x_t = a x + s e,  a = cos(pi t / 2),  s = sin(pi t / 2),  v = a e - s x

with the cosine schedule of arXiv:2102.09672 and the target v of arXiv:2202.00512: x = a x_t - s v and e = s
x_t + a v.
Dimensions: B batch, H W image, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply
from jaxmodels.tasks.keys import content_keys
from jaxmodels.tasks.requirements import labels, of_images

LAST = 0.999  # the greatest time; at 1 nothing of the image is left


def mixture(time_B: jax.Array, rank: int = 4) -> tuple[jax.Array, jax.Array]:
    """(a, s) of these times, with axes of 1 up to `rank`."""
    angle = (time_B * (math.pi / 2)).reshape(-1, *(1,) * (rank - 1))
    return jnp.cos(angle), jnp.sin(angle)


def diffusion(model: nn.Module, *, unlabelled: float = 0.1) -> Task:
    """Mean squared error of v, per pixel, at a random time of each image.

    Batches have image (BHWC, 0 to 1), weight and, for a model with classes, label. unlabelled: part of the
    images whose label is dropped in training, for guidance (arXiv:2207.12598). In evaluation an image's own
    pixels choose time and noise.
    """
    labelled = bool(getattr(model, "classes", 0))

    def init(key, batch):
        B = batch["image"].shape[0]
        extra = dict(model.init(key, batch["image"], time_B=jnp.zeros(B)))
        return extra.pop("params"), extra

    def measure(params, extra, batch, keys_B, training):
        image = 2 * batch["image"].astype(jnp.float32) - 1

        def draw(key, x_HWC):
            time, noise, drop = jax.random.split(key, 3)
            shape = x_HWC.shape
            return jax.random.uniform(time) * LAST, jax.random.normal(noise, shape), jax.random.uniform(drop)

        time_B, noise, drop_B = jax.vmap(draw)(keys_B, image)
        a, s = mixture(time_B)
        options = {"time_B": time_B, "weight": batch["weight"]}
        if labelled:
            hidden_B = (drop_B < unlabelled) & training
            options["label_B"] = jnp.where(hidden_B, model.classes, batch["label"])
        model_keys = keys_B if training else None
        v, extra = apply(model, params, extra, a * image + s * noise, model_keys, **options)
        error_B = ((v.astype(jnp.float32) - (a * noise - s * image)) ** 2).mean((1, 2, 3))
        return {"loss": Mean.of(error_B, batch["weight"])}, extra

    def loss(params, extra, batch, keys_B):
        metrics, extra = measure(params, extra, batch, keys_B, True)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, content_keys(batch["image"]), False)[0]

    def requires(batch, params, extra):
        return {**of_images(batch, params, extra), **({"label": labels(model.classes)} if labelled else {})}

    return Task(init, loss, evaluate, requires=requires)


def sample(
    model: nn.Module,
    shape: tuple[int, int, int],
    *,
    steps: int = 40,
    noise: float = 0.0,
    guidance: float = 1.0,
    inputs: str = "index",
) -> Callable[[Any, Any, Any], jax.Array]:
    """(params, extra, batch) to one image (0 to 1) of this shape for each row, for Evaluation.predict.

    batch[inputs] holds a number for each row that chooses its noise, and "label" its class where the model
    has classes.
    noise: 0 is DDIM (arXiv:2010.02502), which adds none while sampling; 1 is DDPM's ancestral sampling.
    guidance: 1 follows the label, more exaggerates it, by a second pass without labels.
    """
    labelled = bool(getattr(model, "classes", 0))

    def predict(params, extra, batch):
        keys_B = content_keys(batch[inputs])
        start = jax.vmap(lambda key: jax.random.normal(key, shape))(keys_B)
        times = jnp.linspace(LAST, 0.0, steps + 1)

        def v_at(x, time, label_B):
            options = {"time_B": jnp.full(len(x), time)} | ({"label_B": label_B} if labelled else {})
            return apply(model, params, extra, x, None, **options)[0].astype(jnp.float32)

        def step(x, i):
            time, after = times[i], times[i + 1]
            v = v_at(x, time, batch.get("label"))
            if labelled and not (isinstance(guidance, int | float) and guidance == 1):
                free = v_at(x, time, jnp.full(len(x), model.classes))
                v = free + guidance * (v - free)
            (a, s), (b, r) = mixture(time[None]), mixture(after[None])
            image = (a * x - s * v).clip(-1, 1)
            e = (x - a * image) / s
            # arXiv:2010.02502, equation 16
            new = noise * r / s * jnp.sqrt(jnp.maximum(1 - (a / b) ** 2, 0.0))
            fresh = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, i), shape))(keys_B)
            return b * image + jnp.sqrt(jnp.maximum(r**2 - new**2, 0.0)) * e + new * fresh, None

        x, _ = jax.lax.scan(step, start, jnp.arange(steps))
        return ((x + 1) / 2).clip(0, 1)

    return predict
