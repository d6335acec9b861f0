"""Generative adversarial training (arXiv:1406.2661): the losses of both sides, for jaxmodels.alternating's step.

Dimensions: B batch, H W image, C channels, D numbers of the code.
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
    """The non-saturating losses, and half of `penalty` times the squared gradient at real images (arXiv:1801.04406, R1).

    generator maps codes (BD, normal numbers; `generator.code` of them) to images, discriminator images to
    logits. Batches have image (BHWC, 0 to 1) and weight. evaluate gives the parts of the real and of as many
    made images that the discriminator takes for what they are; a real image's own pixels choose the code of
    the made one.
    """

    def codes(keys_B):
        return jax.vmap(lambda key: jax.random.normal(key, (generator.code,)))(keys_B)

    def init(key, batch):
        one, other = jax.random.split(key)
        made = generator.init(one, jnp.zeros((1, generator.code)))["params"]
        return {"discriminator": discriminator.init(other, batch["image"])["params"], "generator": made}, {}

    def make(params, keys_B):
        z_BD = codes(keys_B).astype(jax.tree.leaves(params["generator"])[0].dtype)
        return generator.apply({"params": params["generator"]}, z_BD)

    def judge(params: Any, image: Any) -> Any:
        image = image.astype(jax.tree.leaves(params["discriminator"])[0].dtype)
        logit_B: Any = discriminator.apply({"params": params["discriminator"]}, image)
        return logit_B.astype(jnp.float32)

    def discriminator_loss(params, extra, batch, keys_B):
        logit_B, back = jax.vjp(lambda x: judge(params, x), batch["image"])
        (slope,) = back(jnp.ones_like(logit_B))  # an image's logit depends on no other image
        made_B = judge(params, jax.lax.stop_gradient(make(params, keys_B)))
        steep_B = (slope.astype(jnp.float32) ** 2).sum((1, 2, 3))
        loss_B = jax.nn.softplus(-logit_B) + jax.nn.softplus(made_B) + 0.5 * penalty * steep_B
        values = {"discriminator_loss": loss_B, "slope": steep_B, **right(logit_B, made_B)}
        metrics = {name: Mean.of(x_B, batch["weight"]) for name, x_B in values.items()}
        return metrics["discriminator_loss"], extra, metrics

    def generator_loss(params, extra, batch, keys_B):
        loss = Mean.of(jax.nn.softplus(-judge(params, make(params, keys_B))), batch["weight"])
        return loss, extra, {"generator_loss": loss}

    def right(logit_B, made_B):
        return {"real_accuracy": logit_B > 0, "made_accuracy": made_B < 0}

    def loss(params, extra, batch, keys_B):
        """Of both sides together, for whoever looks at the task alone; the step takes them apart."""
        one, extra, metrics = discriminator_loss(params, extra, batch, keys_B)
        other, extra, more = generator_loss(params, extra, batch, keys_B)
        both = Mean(one.total + other.total, one.weight)
        return both, extra, {**metrics, **more, "loss": both}

    def evaluate(params, extra, batch):
        logit_B = judge(params, batch["image"])
        made_B = judge(params, make(params, content_keys(batch["image"])))
        return {name: Mean.of(x_B, batch["weight"]) for name, x_B in right(logit_B, made_B).items()}

    losses = {"discriminator": discriminator_loss, "generator": generator_loss}
    return Adversaries(Task(init, loss, evaluate, requires=of_images), losses)


def sample(generator: nn.Module, *, inputs: str = "index") -> Callable[[Any, Any, Any], jax.Array]:
    """(params, extra, batch) to one image for each row of batch[inputs], whose number chooses it; for Evaluation.predict."""

    def predict(params, extra, batch):
        z_BD = jax.vmap(lambda key: jax.random.normal(key, (generator.code,)))(content_keys(batch[inputs]))
        return generator.apply({"params": params["generator"]}, z_BD)

    return predict
