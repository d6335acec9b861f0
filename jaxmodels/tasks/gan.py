"""Generative adversarial training (arXiv:1406.2661): both losses, for the step of jaxmodels.alternating.

Dimensions: B batch, H W image, C channels, D size of the code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.keys import content_keys
from jaxmodels.tasks.requirements import of_images


class Adversaries(NamedTuple):
    """The task, whose parameters are {"discriminator": …, "generator": …}, and a loss for each of the two."""

    task: Task
    losses: dict[str, Callable[[Any, Any, Any, Any], tuple[Mean, Any, dict[str, Mean]]]]


def gan(generator: nn.Module, discriminator: nn.Module, *, penalty: float = 1.0) -> Adversaries:
    """The non-saturating losses, and penalty / 2 x squared gradient at real images (R1, arXiv:1801.04406).

    generator maps codes (BD, standard normal, D = generator.code) to images, discriminator maps images to
    logits. Batches have image (BHWC, 0 to 1) and weight. evaluate gives the accuracy of the discriminator on
    the real images and on as many generated ones; a real image's own pixels choose the code of the generated
    one.
    """

    def codes(keys_B):
        return jax.vmap(lambda key: jax.random.normal(key, (generator.code,)))(keys_B)

    def init(key, batch):
        generator_key, discriminator_key = jax.random.split(key)
        of_generator = generator.init(generator_key, jnp.zeros((1, generator.code)))["params"]
        of_discriminator = discriminator.init(discriminator_key, batch["image"])["params"]
        return {"discriminator": of_discriminator, "generator": of_generator}, {}

    def generate(params, keys_B):
        z_BD = codes(keys_B).astype(jax.tree.leaves(params["generator"])[0].dtype)
        return generator.apply({"params": params["generator"]}, z_BD)

    def judge(params: Any, image: Any) -> Any:
        image = image.astype(jax.tree.leaves(params["discriminator"])[0].dtype)
        logit_B: Any = discriminator.apply({"params": params["discriminator"]}, image)
        return logit_B.astype(jnp.float32)

    def discriminator_loss(params, extra, batch, keys_B):
        logit_B, back = jax.vjp(lambda x: judge(params, x), batch["image"])
        (slope,) = back(jnp.ones_like(logit_B))  # an image's logit depends on no other image
        made_B = judge(params, jax.lax.stop_gradient(generate(params, keys_B)))
        steep_B = (slope.astype(jnp.float32) ** 2).sum((1, 2, 3))
        loss_B = jax.nn.softplus(-logit_B) + jax.nn.softplus(made_B) + 0.5 * penalty * steep_B
        values = {"discriminator_loss": loss_B, "slope": steep_B, **right(logit_B, made_B)}
        metrics = {name: Mean.of(x_B, batch["weight"]) for name, x_B in values.items()}
        return metrics["discriminator_loss"], extra, metrics

    def generator_loss(params, extra, batch, keys_B):
        loss = Mean.of(jax.nn.softplus(-judge(params, generate(params, keys_B))), batch["weight"])
        return loss, extra, {"generator_loss": loss}

    def right(logit_B, made_B):
        return {"real_accuracy": logit_B > 0, "made_accuracy": made_B < 0}

    def loss(params, extra, batch, keys_B):
        """The sum of both losses, for callers of the task alone; the step uses them separately."""
        one, extra, metrics = discriminator_loss(params, extra, batch, keys_B)
        other, extra, more = generator_loss(params, extra, batch, keys_B)
        both = Mean(one.total + other.total, one.weight)
        return both, extra, {**metrics, **more, "loss": both}

    def evaluate(params, extra, batch):
        logit_B = judge(params, batch["image"])
        made_B = judge(params, generate(params, content_keys(batch["image"])))
        return {name: Mean.of(x_B, batch["weight"]) for name, x_B in right(logit_B, made_B).items()}

    losses = {"discriminator": discriminator_loss, "generator": generator_loss}
    return Adversaries(Task(init, loss, evaluate, requires=of_images), losses)


def sample(generator: nn.Module, *, inputs: str = "index") -> Callable[[Any, Any, Any], jax.Array]:
    """(params, extra, batch) to one image for each row of batch[inputs], for Evaluation.predict.

    The row's value chooses the image.
    """

    def predict(params, extra, batch):
        z_BD = jax.vmap(lambda key: jax.random.normal(key, (generator.code,)))(content_keys(batch[inputs]))
        return generator.apply({"params": params["generator"]}, z_BD)

    return predict
