"""An encoder with a projection head, as SimCLR and DINO train it, and the features of the encoder alone.

Dimensions: B batch, H W image, C channels, F features, D width of a projection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.tasks.apply import apply

CHUNK = 500  # images that an untrained encoder sees at once


class Projected(nn.Module):
    """An encoder, whose call gives features (BF), and a projection head after it, for training alone."""

    encoder: nn.Module
    hidden: int = 128
    width: int = 64
    layers: int = 2
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Projections, BD: what the loss compares."""
        x_BF = self.encoder(x_BHWC, keys_B)
        for i in range(self.layers - 1):
            x_BF = nn.gelu(nn.Dense(self.hidden, dtype=self.dtype, name=f"hidden_{i}")(x_BF))
        return nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="out")(x_BF)


def encoded(encoder: nn.Module, part: str = "encoder") -> Callable[[Any, Any, Any], jax.Array]:
    """(params, extra, batch) to the encoder's features (BF), for Evaluation.predict.

    part: the encoder's name in the parameters.
    """

    def predict(params, extra, batch):
        own = {name: tree[part] for name, tree in extra.items() if part in tree}
        return apply(encoder, params[part], own, batch["image"], None)[0]

    return predict


def untrained_features(encoder: nn.Module, key: jax.Array, image_BHWC: np.ndarray) -> np.ndarray:
    """Features (BF) of the encoder with random parameters from this key: a baseline for what it learns."""
    variables = jax.jit(encoder.init)(key, image_BHWC[:1])
    apply_jit = jax.jit(lambda image: encoder.apply(variables, image))
    chunks = np.split(image_BHWC, range(CHUNK, len(image_BHWC), CHUNK))
    return np.concatenate([apply_jit(chunk) for chunk in chunks])
