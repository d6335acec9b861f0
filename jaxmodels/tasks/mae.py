"""Masked autoencoding of images: the masked patches from the kept ones (arXiv:2111.06377).

Dimensions: B batch, H W image, C channels, N patches, n kept patches, P values of a patch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply
from jaxmodels.tasks.keys import content_keys
from jaxmodels.tasks.requirements import of_images


def patches(image_BHWC: jax.Array, size: int) -> jax.Array:
    """The image's squares, row by row, each flattened: BNP."""
    B, H, W, C = image_BHWC.shape
    x = image_BHWC.reshape(B, H // size, size, W // size, size, C).swapaxes(2, 3)
    return x.reshape(B, (H // size) * (W // size), size * size * C)


def images(patches_BNP: jax.Array, size: int, shape: tuple[int, int, int]) -> jax.Array:
    """Images of this shape from their patches."""
    H, W, C = shape
    x = patches_BNP.reshape(patches_BNP.shape[0], H // size, W // size, size, size, C).swapaxes(2, 3)
    return x.reshape(-1, H, W, C)


def mae(model: nn.Module, *, patch: int, kept: float = 0.25) -> Task:
    """Mean squared error of the masked patches, each normalised (section 4, "reconstruction target").

    model(image, keys, kept_Bn=…) gives all patches. kept: the part of the patches that the encoder sees,
    chosen by each example's key; in evaluation by its own pixels. Batches have image and weight.
    """

    def measure(params, extra, batch, keys_B, training):
        wanted_BNP = patches(batch["image"].astype(jnp.float32), patch)
        mean, variance = wanted_BNP.mean(-1, keepdims=True), wanted_BNP.var(-1, keepdims=True)
        wanted_BNP = (wanted_BNP - mean) * jax.lax.rsqrt(variance + 1e-6)
        order_BN, kept_Bn = choose(keys_B, wanted_BNP.shape[1], kept)
        model_keys = keys_B if training else None
        guess_BNP, extra = apply(
            model, params, extra, batch["image"], model_keys, kept_Bn=kept_Bn, weight=batch["weight"]
        )
        hidden_BN = jnp.ones(order_BN.shape).at[jnp.arange(order_BN.shape[0])[:, None], kept_Bn].set(0.0)
        miss_BN = ((guess_BNP.astype(jnp.float32) - wanted_BNP) ** 2).mean(-1)
        return {"loss": Mean.of((miss_BN * hidden_BN).sum(-1) / hidden_BN.sum(-1), batch["weight"])}, extra

    def init(key, batch):
        N = patches(batch["image"], patch).shape[1]
        kept_Bn = jnp.zeros((batch["image"].shape[0], count(N, kept)), jnp.int32)
        extra = dict(model.init(key, batch["image"], kept_Bn=kept_Bn))
        return extra.pop("params"), extra

    def loss(params, extra, batch, keys_B):
        metrics, extra = measure(params, extra, batch, keys_B, True)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, content_keys(batch["image"]), False)[0]

    return Task(init, loss, evaluate, requires=of_images)


def count(N: int, kept: float) -> int:
    """The number of kept patches of N: at least one, and not all."""
    return min(max(1, round(N * kept)), N - 1)


def choose(keys_B: jax.Array, N: int, kept: float) -> tuple[jax.Array, jax.Array]:
    """(a random order of each example's patches, its first entries, which are kept)."""
    order_BN = jax.vmap(lambda key: jax.random.permutation(jax.random.fold_in(key, 2**18), N))(keys_B)
    return order_BN, order_BN[:, : count(N, kept)]


def restore(
    model: nn.Module, *, patch: int, kept: float = 0.25
) -> Callable[[Any, Any, Any], dict[str, jax.Array]]:
    """(params, extra, batch) to "masked" and "restored" images, for Evaluation.predict.

    A masked patch gets the mean and deviation of the true one, since the model does not predict them.
    """

    def predict(params, extra, batch):
        image = batch["image"].astype(jnp.float32)
        true_BNP = patches(image, patch)
        mean, deviation = true_BNP.mean(-1, keepdims=True), jnp.sqrt(true_BNP.var(-1, keepdims=True) + 1e-6)
        _, kept_Bn = choose(content_keys(batch["image"]), true_BNP.shape[1], kept)
        guess_BNP = apply(model, params, extra, batch["image"], None, kept_Bn=kept_Bn)[0].astype(jnp.float32)
        seen_BN1 = (
            jnp.zeros((*true_BNP.shape[:2], 1)).at[jnp.arange(image.shape[0])[:, None], kept_Bn].set(1.0)
        )

        def whole(x):
            return images(x, patch, image.shape[1:]).clip(0, 1)

        restored = jnp.where(seen_BN1 > 0, true_BNP, guess_BNP * deviation + mean)
        return {"masked": whole(true_BNP * seen_BN1 + 0.5 * (1 - seen_BN1)), "restored": whole(restored)}

    return predict
