"""MLP-Mixer: MLPs across the patches of an image, then across the channels of each (arXiv:2105.01601).

Dimensions: B batch, H W image, h w patches of a column and a row, N patches, D width, F hidden, K classes, L
    layers.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.conv import Conv
from jaxmodels.layers.drop_path import drop_path
from jaxmodels.layers.dropout import fold
from jaxmodels.layers.model import Model
from jaxmodels.layers.stack import Remat, rematerialised, stack


class Block(Model):
    """An MLP across patches, one across channels; each is normalised going in and added coming out."""

    token_hidden: int
    hidden_width: int
    epsilon: float = 1e-6
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BND, keys_B, rate, collect: tuple[()] | None):
        """(x, x or None) after this block; rate: probability of dropping a branch, None for none."""
        dense = partial(nn.Dense, dtype=self.dtype)
        norm = partial(nn.LayerNorm, epsilon=self.epsilon, dtype=self.dtype)

        def mlp(x, hidden, part):
            return dense(x.shape[-1], name=f"{part}_down")(
                nn.gelu(dense(hidden, name=f"{part}_up")(x), approximate=False)
            )

        def residual(y, number):
            return y if rate is None else drop_path(y, rate, fold(keys_B, number))

        y_BDN = mlp(norm(name="norm_token")(x_BND).swapaxes(1, 2), self.token_hidden, "token")
        x_BND += residual(y_BDN.swapaxes(1, 2), 0)
        x_BND += residual(mlp(norm(name="norm_channel")(x_BND), self.hidden_width, "channel"), 1)
        return x_BND, None if collect is None else x_BND


class Mixer(Model):
    """Maps images of one size to class logits."""

    classes: int  # 0: the pooled features
    width: int
    depth: int
    patch: int
    size: int | tuple[int, int] = 224  # of the images; one number where they are square
    token_hidden: int = 0  # 0 is half the width
    hidden_width: int = 0  # 0 is four times the width
    drop_path: float = 0.0  # of the last block; from 0 at the first it rises linearly
    epsilon: float = 1e-6
    remat: Remat = "none"  # what the backward pass rematerializes
    unroll: int = 1  # blocks in one iteration of the scan
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return height // self.patch, width // self.patch

    def setup(self):
        """Creates the submodules and parameters."""
        size = (self.patch, self.patch)
        self.embed = Conv(self.width, size, strides=size, padding="VALID", dtype=self.dtype)
        self.blocks = rematerialised(Block, self.remat)(
            self.token_hidden or self.width // 2,
            self.hidden_width or 4 * self.width,
            self.epsilon,
            self.dtype,
        )
        self.norm = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype)
        if self.classes:
            self.head = nn.Dense(self.classes, kernel_init=nn.initializers.zeros, dtype=self.dtype)

    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Class logits; keys_B: one random key per example while training."""
        x_BD = self.norm(self._through(x_BHWC, keys_B, False)[0]).mean(1)
        return self.head(x_BD) if self.classes else x_BD

    def features(self, x_BHWC: jax.Array, keys_B: jax.Array | None = None) -> dict[str, jax.Array]:
        """Feature maps BhwD after each quarter of the blocks, such as "block_3"; the last is normalised."""
        x_BND, layers_LBND = self._through(x_BHWC, keys_B, True)
        numbers = sorted({-(-self.depth * quarter // 4) for quarter in (1, 2, 3, 4)})
        maps = {f"block_{number}": layers_LBND[number - 1] for number in numbers}
        maps[f"block_{self.depth}"] = self.norm(x_BND)
        return {name: x.reshape(x.shape[0], *self.grid, -1) for name, x in maps.items()}

    def _through(self, x_BHWC, keys_B, collect: bool):
        """(patches after all blocks, those after each or None)."""
        (h, w), (H, W) = self.grid, x_BHWC.shape[1:3]
        if h * self.patch != H or w * self.patch != W:
            raise ValueError(
                f"Mixer: got images of {H}x{W}; expected {h * self.patch}x{w * self.patch}, {h}x{w} patches "
                f"of {self.patch}. Resize the images, or give the model another size."
            )
        x_BND = self.embed(x_BHWC).reshape(x_BHWC.shape[0], h * w, self.width)
        rate_L = None
        if not (isinstance(self.drop_path, int | float) and self.drop_path == 0):
            rate_L = self.drop_path * jnp.arange(self.depth) / max(1, self.depth - 1)
        return stack(
            self.blocks, self.depth, x_BND, keys_B, rate_L, () if collect else None, unroll=self.unroll
        )


mixer_s32, mixer_s16 = (partial(Mixer, width=512, depth=8, patch=patch) for patch in (32, 16))
mixer_b32, mixer_b16 = (partial(Mixer, width=768, depth=12, patch=patch) for patch in (32, 16))
mixer_l16 = partial(Mixer, width=1024, depth=24, patch=16)
