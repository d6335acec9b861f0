"""Convolution, then batch normalisation (arXiv:1502.03167).

Dimensions: B batch, H W image, h w map, C channels, F features.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.batch_norm import BatchNorm
from jaxmodels.layers.conv import Conv

HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # arXiv:1502.01852


def same_padding(kernel: int | tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding that keeps the size at stride 1; equal on both sides at any stride."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    return (height // 2, height // 2), (width // 2, width // 2)


def batch_norm(keys_B: jax.Array | None, dtype: Any, epsilon: float = 1e-5, **options: Any) -> BatchNorm:
    """Batch normalisation: with keys, as in training, it uses and updates the batch statistics."""
    return BatchNorm(
        use_running_average=keys_B is None, momentum=0.9, epsilon=epsilon, dtype=dtype, **options
    )


class ConvNorm(nn.Module):
    """Convolution without bias, then batch normalisation; batch statistics where keys are given."""

    features: int
    kernel: int | tuple[int, int] = 3
    stride: int = 1
    groups: int = 1
    padded: bool = True  # keeps the size at stride 1; else no padding
    last: bool = False  # of a residual branch: the scale starts at 0, so that a block starts as the identity
    epsilon: float = 1e-5
    kernel_init: Any = HE
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, keys_B: jax.Array | None) -> jax.Array:
        """Normalised features."""
        x_BhwF = Conv(
            self.features,
            (self.kernel, self.kernel) if isinstance(self.kernel, int) else self.kernel,
            strides=self.stride,
            padding=same_padding(self.kernel) if self.padded else "VALID",
            feature_group_count=self.groups,
            use_bias=False,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name="conv",
        )(x_BHWC)
        scale = nn.initializers.zeros if self.last else nn.initializers.ones
        return batch_norm(keys_B, self.dtype, self.epsilon, scale_init=scale, name="norm")(x_BhwF)
