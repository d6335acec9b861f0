"""SimCLR: features without labels, by finding the other view of an image among a batch (arXiv:2002.05709).

Dimensions: B batch, N the 2 B views, H W image, C channels, D width of a projection.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.keys import fold
from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, init_from
from jaxmodels.tasks.keys import content_keys
from jaxmodels.tasks.ranking import first
from jaxmodels.tasks.requirements import of_images

Views = Callable[[jax.Array, jax.Array], jax.Array]  # (image_BHWC, keys_B) to changed images


def simclr(model: nn.Module, views: Views, *, temperature: float = 0.2) -> Task:
    """Normalised temperature-scaled cross-entropy (equation 1), on batches of image and weight.

    Each view is classified among all views that the loss sees; the right class is the other view of its
    image. Under pmap and with micro-batches each part is by itself, as in batch normalisation. Padding is
    never a negative. In evaluation an image's own pixels choose the views, and the metric "likeness" is the
    cosine of the two, since no example may depend on another.
    """

    def project(params, extra, batch, keys_B, training):
        both = [views(batch["image"], fold(keys_B, i)) for i in (0, 1)]
        model_keys = jnp.concatenate([fold(keys_B, 2), fold(keys_B, 3)]) if training else None
        z, extra = apply(
            model,
            params,
            extra,
            jnp.concatenate(both),
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
        candidate_NN = (weight_N > 0) & ~jnp.eye(2 * B, dtype=bool)
        score_NN = jnp.where(candidate_NN, score_NN, -1e30)
        positive_N = jnp.roll(jnp.arange(2 * B), B)
        positive_score_N = jnp.take_along_axis(score_NN, positive_N[:, None], -1)[:, 0]
        loss_N = jax.nn.logsumexp(score_NN, -1) - positive_score_N
        right_N = first(score_NN, positive_N)
        metrics = {"loss": Mean.of(loss_N, weight_N), "found": Mean.of(right_N, weight_N)}
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        z_ND, _ = project(params, extra, batch, content_keys(batch["image"]), False)
        one_BD, other_BD = jnp.split(z_ND, 2)
        return {"likeness": Mean.of((one_BD * other_BD).sum(-1), batch["weight"])}

    return Task(init_from(model, "image"), loss, evaluate, requires=of_images)
