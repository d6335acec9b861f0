"""Convolution for all image models: XLA's own, except where CPUs have a faster implementation.

On CPUs, measured on two cores by benchmarks/convolution.py:

- a 1 x 1 convolution is two to three times faster written as a matrix product;

- the gradient of a kernel of 3 x 3 or more is a matrix product of unfolded inputs: for images of 14 x 14 or
  more, up to three times as fast when computed row by row, so that the unfolded rows stay in the cache.

The choice is made when a program is lowered for its platform; on GPUs and TPUs it is always XLA's own.
Results agree to rounding. These faster convolutions have no forward-mode derivative (jax.jvp).
Dimensions: B batch, H W image, h w output, C channels, F features, k kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from jaxmodels.parallel import axes

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Pads = tuple[tuple[int, int], ...]


def conv_general_dilated(
    x_BHWC: Any,
    kernel: Any,
    window_strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> jax.Array:
    """lax.conv_general_dilated of images, NHWC, with the gradients that suit the platform."""
    if x_BHWC.ndim == 4 and axes.size(axes.CONTEXT) > 1:
        options = {
            "rhs_dilation": rhs_dilation,
            "feature_group_count": feature_group_count,
            "precision": precision,
        }
        return _split_rows(x_BHWC, kernel, tuple(window_strides), padding, lhs_dilation, options)
    plain = {*(lhs_dilation or (1,)), *(rhs_dilation or (1,)), feature_group_count} == {1}
    if x_BHWC.ndim == 4 and plain and precision is None:
        k, strides = kernel.shape[:2], (int(window_strides[0]), int(window_strides[1]))
        pads = padding
        if isinstance(pads, str):
            pads = lax.padtype_to_pads(x_BHWC.shape[1:3], k, window_strides, pads)
        pads = tuple((int(low), int(high)) for low, high in pads)
        if k == (1, 1) and pads == ((0, 0), (0, 0)):
            return _pointwise(strides, x_BHWC, kernel)
        if _suits_rows(x_BHWC.shape, kernel.shape) and min(map(min, pads)) >= 0:
            return _by_rows(strides, pads, x_BHWC, kernel)
    return lax.conv_general_dilated(
        x_BHWC,
        kernel,
        window_strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers or DIMENSIONS,
        feature_group_count=feature_group_count,
        precision=precision,
    )


Conv = partial(nn.Conv, conv_general_dilated=conv_general_dilated)  # a linen Conv, with the same parameters


def _split_rows(
    x_BHWC: Any, kernel: Any, strides: tuple[int, ...], padding: Any, lhs_dilation: Any, options: Any
) -> jax.Array:
    """Each device along `context` computes its rows of the output, from all rows of the input.

    XLA could split this itself, but where another mesh axis replicates the rows, its gradient of the kernel
    counts every replica (seen with jax 0.10.2 and 0.12.0.1).
    """
    dilation = options["rhs_dilation"] or (1, 1)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel.shape[:2], dilation, strict=True)]
    pads = (
        lax.padtype_to_pads(x_BHWC.shape[1:3], spans, strides, padding)
        if isinstance(padding, str)
        else padding
    )
    pads = tuple((int(low), int(high)) for low, high in pads)
    rows, examples = (
        (x_BHWC.shape[1] + sum(pads[0]) - spans[0]) // strides[0] + 1,
        axes.dividing(axes.BATCH, len(x_BHWC)),
    )
    plain = {*(lhs_dilation or (1,))} == {1} and min(pads[0]) >= 0 and rows % axes.size(axes.CONTEXT) == 0
    each = rows // axes.size(axes.CONTEXT)

    def local(x, w):
        if not plain:
            return conv_general_dilated(x, w, strides, pads, lhs_dilation, **options)
        x = jnp.pad(x, ((0, 0), pads[0], (0, 0), (0, 0)))
        first = lax.axis_index(axes.CONTEXT) * each * strides[0]
        x = lax.dynamic_slice_in_dim(x, first, (each - 1) * strides[0] + spans[0], 1)
        return conv_general_dilated(x, w, strides, ((0, 0), pads[1]), **options)

    whole, split = P(examples or None), P(examples or None, axes.CONTEXT if plain else None)
    return jax.shard_map(local, in_specs=(whole, P()), out_specs=split, check_vma=False)(x_BHWC, kernel)


def _suits_rows(x_shape: Sequence[int], kernel_shape: Sequence[int]) -> bool:
    """Whether the kernel's gradient is faster row by row, as measured by benchmarks/convolution.py."""
    (_, H, W, C), (kh, kw, _, F) = x_shape, kernel_shape
    return 9 <= kh * kw <= 49 and F >= 32 and H * W >= 196 and kh * kw * C >= 144


def _native(x_BHWC: Any, kernel: Any, strides: tuple[int, int], pads: Pads = ((0, 0), (0, 0))) -> jax.Array:
    return lax.conv_general_dilated(x_BHWC, kernel, strides, pads, dimension_numbers=DIMENSIONS)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _pointwise(strides: tuple[int, int], x_BHWC: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.platform_dependent(
        x_BHWC, kernel, cpu=partial(_product, strides), default=lambda x, w: _native(x, w, strides)
    )


def _product(strides: tuple[int, int], x_BHWC: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.einsum("BhwC,CF->BhwF", x_BHWC[:, :: strides[0], :: strides[1]], kernel[0, 0])


def _pointwise_backward(
    strides: tuple[int, int], residuals: Any, dy_BhwF: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return lax.platform_dependent(
        *residuals,
        dy_BhwF,
        cpu=lambda x, w, dy: jax.vjp(partial(_product, strides), x, w)[1](dy),
        default=lambda x, w, dy: jax.vjp(lambda x, w: _native(x, w, strides), x, w)[1](dy),
    )


_pointwise.defvjp(lambda strides, x, w: (_pointwise(strides, x, w), (x, w)), _pointwise_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_rows(strides: tuple[int, int], pads: Pads, x_BHWC: jax.Array, kernel: jax.Array) -> jax.Array:
    return _native(x_BHWC, kernel, strides, pads)


def _by_rows_backward(
    strides: tuple[int, int], pads: Pads, residuals: Any, dy_BhwF: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x_BHWC, kernel = residuals
    (dx_BHWC,) = jax.vjp(lambda x: _native(x, kernel, strides, pads), x_BHWC)[1](dy_BhwF)
    dkernel = lax.platform_dependent(
        x_BHWC,
        kernel,
        dy_BhwF,
        cpu=lambda x, w, dy: _kernel_gradient(x, w.shape, dy, strides, pads).astype(w.dtype),
        default=lambda x, w, dy: jax.vjp(lambda w: _native(x, w, strides, pads), w)[1](dy)[0],
    )
    return dx_BHWC, dkernel


_by_rows.defvjp(lambda strides, pads, x, w: (_by_rows(strides, pads, x, w), (x, w)), _by_rows_backward)


def _kernel_gradient(
    x_BHWC: Any, shape: Sequence[int], dy_BhwF: Any, strides: tuple[int, int], pads: Pads
) -> jax.Array:
    """Sum over output rows of dy^T (unfolded input); row by row, a batch split over devices stays split."""
    (kh, kw, C, F), (down, across) = shape, strides
    h, w = dy_BhwF.shape[1:3]
    x_BHWC = jnp.pad(x_BHWC, ((0, 0), *pads, (0, 0)))

    def add(total, row):
        band = lax.dynamic_slice_in_dim(x_BHWC, row * down, kh, 1)
        shifted = [band[:, i, j : j + (w - 1) * across + 1 : across] for i in range(kh) for j in range(kw)]
        unfolded = jnp.concatenate(shifted, -1)
        dy_BwF = lax.dynamic_index_in_dim(dy_BhwF, row, 1, keepdims=False)
        return total + jnp.einsum("BwF,BwK->FK", dy_BwF, unfolded, preferred_element_type=jnp.float32), None

    return lax.scan(add, jnp.zeros((F, kh * kw * C)), jnp.arange(h))[0].T.reshape(tuple(shape))
