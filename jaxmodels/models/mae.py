"""Masked autoencoder: an image from a few of its patches (arXiv:2111.06377).

Dimensions: B batch, H W image, N patches, n kept patches, D width of the encoder, E width of the
decoder, P values of a patch.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.dropout import fold
from jaxmodels.layers.model import Model
from jaxmodels.layers.stack import stack


class MAE(Model):
    """Maps images and the indices of the kept patches to all patches, BNP."""

    encoder: Any  # has tokens(x, keys, kept), grid, before and patch, as models/vit.py
    block: nn.Module  # of the decoder: (x, keys, None, None) -> (x, None), as vit.Block
    outputs: int  # values of a patch
    width: int = 48
    depth: int = 2

    @nn.compact
    def __call__(
        self, x_BHWC: jax.Array, keys_B: jax.Array | None = None, *, kept_Bn: jax.Array
    ) -> jax.Array:
        """The prediction of every patch."""
        small = nn.initializers.truncated_normal(0.02)
        h, w = self.encoder.grid
        seen_BTD = self.encoder.tokens(x_BHWC, keys_B, kept_Bn)[:, self.encoder.before :]
        seen_BnE = nn.Dense(self.width, name="narrow")(seen_BTD)
        B = seen_BnE.shape[0]
        hidden_E = self.param("mask", small, (self.width,))
        all_BNE = jnp.broadcast_to(hidden_E.astype(seen_BnE.dtype), (B, h * w, self.width))
        all_BNE = all_BNE.at[jnp.arange(B)[:, None], kept_Bn].set(seen_BnE)
        all_BNE += self.param("position", small, (h * w, self.width)).astype(all_BNE.dtype)
        all_BNE, _ = stack(self.block, self.depth, all_BNE, fold(keys_B, 2**17), None, None)
        return nn.Dense(self.outputs, name="out")(nn.LayerNorm(epsilon=1e-6, name="norm")(all_BNE))
