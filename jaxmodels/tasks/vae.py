"""Variational autoencoding: the evidence lower bound (arXiv:1312.6114, equation 3).

Dimensions: B batch, H W image, C channels, D size of the code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmodels import choices
from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, init_from
from jaxmodels.tasks.keys import content_keys
from jaxmodels.tasks.requirements import of_images


def vae(
    model: nn.Module,
    *,
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
    deviation: float = 0.1,
    beta: float = 1.0,
) -> Task:
    """Negative evidence lower bound of images from 0 to 1, in nats per image, by one sample of the code.

    The model gives (logits, mean, log variance). likelihood: of a pixel, Bernoulli with the logits (grey
    values count as probabilities, so it is no density of them), or a normal distribution around their sigmoid
    with this deviation. beta: weight of the divergence (Higgins et al., 2017); 1 is the bound. Batches have
    image and weight. In evaluation an image's own pixels choose the sample.
    """
    choices.check("vae", "likelihood", likelihood, ("bernoulli", "gaussian"))

    def measure(logits_BHWC: Any, mean_BD: Any, log_variance_BD: Any, batch: Any) -> dict[str, Mean]:
        logits, image = logits_BHWC.astype(jnp.float32), batch["image"].astype(jnp.float32)
        if likelihood == "bernoulli":
            miss = optax.sigmoid_binary_cross_entropy(logits, image)
        else:
            off = (jax.nn.sigmoid(logits) - image) / deviation
            miss = 0.5 * (off**2 + math.log(2 * math.pi)) + jnp.log(deviation)
        miss_B = miss.sum((1, 2, 3))
        kl_B = 0.5 * (mean_BD**2 + jnp.exp(log_variance_BD) - 1 - log_variance_BD).sum(-1)
        values = {"loss": miss_B + beta * kl_B, "reconstruction": miss_B, "divergence": kl_B}
        return {name: Mean.of(x_B, batch["weight"]) for name, x_B in values.items()}

    def loss(params, extra, batch, keys_B):
        (logits, mean, log_variance), extra = apply(
            model, params, extra, batch["image"], keys_B, weight=batch["weight"]
        )
        metrics = measure(logits, mean, log_variance, batch)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        (logits, mean, log_variance), _ = apply(
            model, params, extra, batch["image"], content_keys(batch["image"]), weight=batch["weight"]
        )
        return measure(logits, mean, log_variance, batch)

    return Task(init_from(model, "image"), loss, evaluate, requires=of_images)


def sample(model: nn.Module, *, inputs: str = "index") -> Callable[[Any, Any, Any], jax.Array]:
    """(params, extra, batch) to one image for each row of batch[inputs], for Evaluation.predict.

    The row's value chooses the image.
    """

    def predict(params, extra, batch):
        z_BD = jax.vmap(lambda key: jax.random.normal(key, (model.code,)))(content_keys(batch[inputs]))
        logits: Any = model.apply({"params": params, **extra}, z_BD, method="decode")
        return jax.nn.sigmoid(logits)

    return predict
