"""DiT, a diffusion transformer: time and label modulate every block (arXiv:2212.09748).

The parameters of scales, shifts and gates start at zero, so that a block starts as the identity (adaLN-Zero).
Dimensions: B batch, H W image, h w patches of a column and a row, C channels, N patches, D width, K classes,
    L layers.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.layers.attention import attention
from jaxmodels.layers.model import Model
from jaxmodels.layers.stack import Remat, rematerialised, stack
from jaxmodels.layers.timestep_embedding import timestep_embedding

zeros = nn.initializers.zeros
small = nn.initializers.normal(0.02)


def modulated(x_BND: jax.Array, shift_BD: jax.Array, scale_BD: jax.Array) -> jax.Array:
    """x (1 + scale) + shift, with a scale and a shift per example."""
    return x_BND * (1 + scale_BD[:, None]) + shift_BD[:, None]


class Block(Model):
    """Attention, then MLP, each modulated going in and gated coming out (figure 3, adaLN-Zero)."""

    heads: int
    hidden_width: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BND, keys_B, _, condition_BD):
        """(x, None) after this block."""
        D = x_BND.shape[-1]
        dense = partial(nn.Dense, dtype=self.dtype)
        norm = partial(nn.LayerNorm, epsilon=1e-6, use_bias=False, use_scale=False, dtype=self.dtype)
        modulation = dense(6 * D, kernel_init=zeros, name="modulation")(condition_BD)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = jnp.split(modulation, 6, -1)

        qkv_BND = dense(3 * D, name="qkv")(modulated(norm(name="norm_attention")(x_BND), shift, scale))
        q, k, v = (y.reshape(*y.shape[:2], self.heads, -1) for y in jnp.split(qkv_BND, 3, -1))
        x_BND += gate[:, None] * dense(D, name="out")(attention(q, k, v).reshape(x_BND.shape))
        y_BNF = dense(self.hidden_width, name="up")(
            modulated(norm(name="norm_mlp")(x_BND), shift_mlp, scale_mlp)
        )
        x_BND += gate_mlp[:, None] * dense(D, name="down")(nn.gelu(y_BNF))
        return x_BND, None


class DiT(Model):
    """Maps noisy images, times from 0 to 1 and optional labels to predictions of the images' shape."""

    width: int
    depth: int
    heads: int
    patch: int = 2
    hidden_width: int = 0  # 0 is four times the width
    classes: int = 0  # 0: without labels; the label `classes` means none
    remat: Remat = "none"  # what the backward pass rematerializes
    unroll: int = 1  # blocks in one iteration of the scan
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def __call__(self, x_BHWC, keys_B=None, *, time_B, label_B=None):
        """The prediction for each image, BHWC; nothing is random, so keys_B is unused."""
        B, H, W, C = x_BHWC.shape
        p, D = self.patch, self.width
        if H % p or W % p or D % (4 * self.heads):
            raise ValueError(
                f"DiT: got images of {H}x{W}, width {D} and {self.heads} heads; expected multiples of the "
                f"patch, {p}, and a width that four times the heads divide. Change one."
            )
        h, w = H // p, W // p
        dense = partial(nn.Dense, dtype=self.dtype)
        time_BD = dense(D, kernel_init=small, name="time_1")(
            timestep_embedding(time_B, 256).astype(x_BHWC.dtype)
        )
        condition_BD = dense(D, kernel_init=small, name="time_2")(nn.silu(time_BD))
        if self.classes:
            label_B = jnp.full(B, self.classes) if label_B is None else label_B
            embed = nn.Embed(
                self.classes + 1, D, embedding_init=small, dtype=condition_BD.dtype, name="label"
            )
            condition_BD += embed(label_B)
        condition_BD = nn.silu(condition_BD)

        x_BNF = x_BHWC.reshape(B, h, p, w, p, C).swapaxes(2, 3).reshape(B, h * w, p * p * C)
        x_BND = dense(D, name="embed")(x_BNF)
        x_BND += jnp.asarray(position_encoding(h, w, D), x_BND.dtype)
        block = rematerialised(Block, self.remat)(
            self.heads, self.hidden_width or 4 * D, self.dtype, name="blocks"
        )
        x_BND, _ = stack(block, self.depth, x_BND, None, None, condition_BD, unroll=self.unroll)
        shift, scale = jnp.split(dense(2 * D, kernel_init=zeros, name="modulation")(condition_BD), 2, -1)
        norm = nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, dtype=self.dtype, name="norm")
        x_BNF = dense(p * p * C, kernel_init=zeros, name="last")(modulated(norm(x_BND), shift, scale))
        return x_BNF.reshape(B, h, w, p, p, C).swapaxes(2, 3).reshape(B, H, W, C)


def position_encoding(h: int, w: int, width: int) -> np.ndarray:
    """Sines and cosines (N, width) of each patch's column and row, half of the width each (appendix A)."""
    rate = 10_000.0 ** -(np.arange(width // 4) / (width // 4))
    rows, columns = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    angles = [position.reshape(-1, 1) * rate for position in (columns, rows)]
    return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], -1).astype(
        np.float32
    )


dit_s = partial(DiT, width=384, depth=12, heads=6)
dit_b = partial(DiT, width=768, depth=12, heads=12)
dit_l = partial(DiT, width=1024, depth=24, heads=16)
dit_xl = partial(DiT, width=1152, depth=28, heads=16)
dit_28 = partial(DiT, width=96, depth=6, heads=4, patch=4)  # for images of 28 x 28, 1.1 million parameters
