"""Vision Transformer: an image read as a sequence of patches (arXiv:2010.11929).

Mean pooling in place of the class token as in the paper's appendix D.3, register tokens of arXiv:2309.16588,
stochastic depth as in arXiv:2012.12877 and layer scale (arXiv:2103.17239) are choices.
Dimensions: B batch, H W image, h w rows and columns of patches, N patches, n kept patches, T tokens,
D width, F hidden, K classes, L layers.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.attention import attention
from jaxmodels.layers.conv import Conv
from jaxmodels.layers.drop_path import drop_path
from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model
from jaxmodels.layers.stack import Remat, rematerialised, stack
from jaxmodels.layers.transformer_rules import transformer_rules

small = nn.initializers.truncated_normal(0.02)


class Block(Model):
    """Attention, then MLP; each is normalised going in and added coming out."""

    heads: int
    hidden_width: int
    dropout: float = 0.0
    layer_scale: float = 0.0
    epsilon: float = 1e-6
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BTD, keys_B, rate, collect: tuple[()] | None):
        """(x, x or None) after this block; rate: probability of dropping a branch; None is no stochastic
        depth. collect: () or None, as rematerialization would trace a bool.
        """
        D = x_BTD.shape[-1]
        dense = partial(nn.Dense, kernel_init=small, dtype=self.dtype)
        norm = partial(nn.LayerNorm, epsilon=self.epsilon, dtype=self.dtype)

        qkv_BTD = dense(3 * D, name="qkv")(norm(name="norm_attention")(x_BTD))
        # Heads first, then query, key and value: a mesh may split the heads.
        q, k, v = jnp.moveaxis(qkv_BTD.reshape(*qkv_BTD.shape[:2], self.heads, 3, -1), 3, 0)
        y_BTD = dense(D, name="out")(attention(q, k, v).reshape(x_BTD.shape))
        x_BTD += self.branch(y_BTD, "scale_attention", keys_B, rate, 0)

        y_BTF = nn.gelu(dense(self.hidden_width, name="up")(norm(name="norm_mlp")(x_BTD)), approximate=False)
        y_BTD = dense(D, name="down")(dropout(y_BTF, self.dropout, fold(keys_B, 4)))
        x_BTD += self.branch(y_BTD, "scale_mlp", keys_B, rate, 1)
        return x_BTD, None if collect is None else x_BTD

    def branch(self, y_BTD, name: str, keys_B, rate, index: int):
        """The branch after layer scale, dropout and stochastic depth."""
        if self.layer_scale:
            y_BTD *= self.param(name, nn.initializers.constant(self.layer_scale), y_BTD.shape[-1:]).astype(
                y_BTD.dtype
            )
        y_BTD = dropout(y_BTD, self.dropout, fold(keys_B, index))
        return y_BTD if rate is None else drop_path(y_BTD, rate, fold(keys_B, index + 2))


class ViT(Model):
    """Maps images of one size to class logits."""

    classes: int  # 0: the pooled features
    width: int
    depth: int
    heads: int
    patch: int
    size: int | tuple[int, int] = 224  # of the images; one number where they are square
    hidden_width: int = 0  # 0 is four times the width
    pool: Literal["token", "mean"] = "token"
    registers: int = 0
    dropout: float = 0.0
    drop_path: float = 0.0  # of the last block; from 0 at the first it rises linearly
    layer_scale: float = 0.0  # initial value; 0 is none
    epsilon: float = 1e-6
    remat: Remat = "none"  # what the backward pass rematerializes
    unroll: int = 1  # blocks in one iteration of the scan
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return height // self.patch, width // self.patch

    @property
    def before(self) -> int:
        """Tokens before the patches."""
        return (self.pool == "token") + self.registers

    def setup(self):
        """Creates the submodules and parameters."""
        if self.width % self.heads:
            raise ValueError(
                f"ViT: got width {self.width} and {self.heads} heads; expected a multiple of the number of "
                "heads. Change one."
            )
        size = (self.patch, self.patch)
        self.embed = Conv(self.width, size, strides=size, padding="VALID", dtype=self.dtype)
        positions = self.grid[0] * self.grid[1] + (self.pool == "token")
        self.position = self.param("position", small, (positions, self.width))
        if self.pool == "token":
            self.token = self.param("token", nn.initializers.zeros, (1, self.width))
        if self.registers:
            self.register = self.param("register", small, (self.registers, self.width))
        self.blocks = rematerialised(Block, self.remat)(
            self.heads,
            self.hidden_width or 4 * self.width,
            self.dropout,
            self.layer_scale,
            self.epsilon,
            self.dtype,
        )
        self.norm = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype)
        if self.classes:
            self.head = nn.Dense(self.classes, kernel_init=small, dtype=self.dtype)

    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Class logits; keys_B: one random key per example while training."""
        x_BTD = self.tokens(x_BHWC, keys_B)
        x_BD = x_BTD[:, 0] if self.pool == "token" else x_BTD[:, self.before :].mean(1)
        return self.head(x_BD) if self.classes else x_BD

    def tokens(
        self, x_BHWC: jax.Array, keys_B: jax.Array | None = None, kept_Bn: jax.Array | None = None
    ) -> jax.Array:
        """The normalised tokens: class token and registers, if any, then the patches, row by row.

        kept_Bn: indices of the patches to keep, in this order; None is all.
        """
        return self.norm(self._through(x_BHWC, keys_B, kept_Bn, False)[0])

    def features(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> dict[str, jax.Array]:
        """Feature maps BhwD after each quarter of the blocks, such as "block_3"; the last is normalised."""
        x_BTD, layers_LBTD = self._through(x_BHWC, keys_B, None, True)
        numbers = sorted({-(-self.depth * quarter // 4) for quarter in (1, 2, 3, 4)})
        maps = {f"block_{number}": layers_LBTD[number - 1] for number in numbers}
        maps[f"block_{self.depth}"] = self.norm(x_BTD)
        return {name: x[:, self.before :].reshape(x.shape[0], *self.grid, -1) for name, x in maps.items()}

    def _through(self, x_BHWC, keys_B, kept_Bn, collect: bool):
        """(tokens after all blocks, those after each or None)."""
        (h, w), (H, W) = self.grid, x_BHWC.shape[1:3]
        if h * self.patch != H or w * self.patch != W:
            raise ValueError(
                f"ViT: got images of {H}x{W}; expected {h * self.patch}x{w * self.patch}, {h}x{w} patches of "
                f"{self.patch}. Resize the images, or give the model another size."
            )
        x_BND = self.embed(x_BHWC).reshape(x_BHWC.shape[0], h * w, self.width)
        first = self.position.shape[0] - h * w
        x_BND += self.position[first:].astype(x_BND.dtype)
        if kept_Bn is not None:
            x_BND = jnp.take_along_axis(x_BND, kept_Bn[..., None], 1)
        before = []
        if self.pool == "token":
            before.append(self.token + self.position[:1])
        if self.registers:
            before.append(self.register)
        x_BTD = jnp.concatenate(
            [*(jnp.broadcast_to(y.astype(x_BND.dtype), (x_BND.shape[0], *y.shape)) for y in before), x_BND], 1
        )
        x_BTD = dropout(x_BTD, self.dropout, fold(keys_B, 2**16))
        rate_L = None
        if not (isinstance(self.drop_path, int | float) and self.drop_path == 0):
            rate_L = self.drop_path * jnp.arange(self.depth) / max(1, self.depth - 1)
        return stack(
            self.blocks, self.depth, x_BTD, keys_B, rate_L, () if collect else None, unroll=self.unroll
        )

    def rules(self):
        """How the parameters are split over a mesh; see jaxmodels.parallel.rules."""
        return transformer_rules(self.heads)


vit_ti = partial(ViT, width=192, depth=12, heads=3)
vit_s = partial(ViT, width=384, depth=12, heads=6)
vit_b = partial(ViT, width=768, depth=12, heads=12)
vit_l = partial(ViT, width=1024, depth=24, heads=16)
vit_h = partial(ViT, width=1280, depth=32, heads=16)
vit_ti16, vit_s16, vit_b16, vit_l16 = (partial(size, patch=16) for size in (vit_ti, vit_s, vit_b, vit_l))
vit_h14 = partial(vit_h, patch=14)
vit_28 = partial(
    ViT, width=64, depth=6, heads=4, hidden_width=128, patch=4, size=28, pool="mean"
)  # 0.2 million parameters
