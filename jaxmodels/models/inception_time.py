"""InceptionTime: classes of series by convolutions of three lengths side by side (arXiv:1909.04939).

This is one network; the paper averages the probabilities of five, trained from different seeds.
Dimensions: B batch, T steps, C channels, K classes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.batch_norm import BatchNorm
from jaxmodels.layers.model import Model


class InceptionTime(Model):
    """Maps series of any one length to class logits; every third module adds what it got three before."""

    classes: int
    depth: int = 6
    width: int = 32  # of each of the four branches of a module, and of what they read
    kernels: tuple[int, ...] = (40, 20, 10)
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    @nn.compact
    def __call__(self, series_BTC: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Class logits, BK. keys_B: any keys while training, when batches are normalised by themselves."""
        if series_BTC.ndim != 3:
            raise ValueError(
                f"InceptionTime: got series of the shape {series_BTC.shape}; expected (batch, steps, "
                "channels). Add an axis: x[..., None]."
            )
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        statistics: dict[str, Any] = {"use_running_average": keys_B is None, "momentum": 0.9, "epsilon": 1e-3}
        norm = partial(BatchNorm, dtype=self.dtype, **statistics)
        x_BTC = shortcut_BTC = series_BTC
        for n in range(self.depth):
            narrow_BTC = x_BTC
            if x_BTC.shape[-1] > 1:
                narrow_BTC = conv(self.width, (1,), name=f"narrow_{n}")(x_BTC)
            branches = [
                conv(self.width, (size,), name=f"conv_{n}_{size}")(narrow_BTC) for size in self.kernels
            ]
            pooled_BTC = nn.max_pool(x_BTC, (3,), (1,), "SAME")
            branches.append(conv(self.width, (1,), name=f"pool_{n}")(pooled_BTC))
            x_BTC = nn.relu(norm(name=f"norm_{n}")(jnp.concatenate(branches, -1)))
            if n % 3 == 2:
                projected_BTC = conv(x_BTC.shape[-1], (1,), name=f"shortcut_{n}")(shortcut_BTC)
                x_BTC = nn.relu(x_BTC + norm(name=f"norm_shortcut_{n}")(projected_BTC))
                shortcut_BTC = x_BTC
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x_BTC.mean(1))


inception_time = partial(InceptionTime, depth=6)
