"""Max pooling with a gradient that suits the platform, and mean pooling to a given size.

On CPUs, XLA's gradient of max pooling searches every window on its own; comparing shifted images finds the
same positions several times faster (measured by benchmarks/convolution.py). The choice is made when a program
is lowered for its platform; on GPUs and TPUs it is always XLA's own. Results agree to rounding. max_pool has
no forward-mode derivative (jax.jvp).
Dimensions: B batch, H W image, h w output, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Pads = tuple[tuple[int, int], tuple[int, int]]
SMALL = 1024  # pixels of an image; for larger ones XLA's own forward pass is faster


def max_pool(
    x_BHWC: jax.Array, window: int = 2, stride: int | None = None, padding: Pads = ((0, 0), (0, 0))
) -> jax.Array:
    """The largest value of each window x window square, `stride` apart; by default side by side.

    Padding is never the largest value. Windows that would reach beyond the far edges are left out. The first
    of several largest values gets the gradient, as in XLA's own.
    """
    stride, padding = stride or window, ((padding[0][0], padding[0][1]), (padding[1][0], padding[1][1]))
    if any(n + sum(pads) < window for n, pads in zip(x_BHWC.shape[1:3], padding, strict=True)):
        return _native(window, stride, padding, x_BHWC)  # an empty output
    return _max_pool(window, stride, padding, x_BHWC)


def ceil_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """The padding of one axis that adds a window where some elements remain, as PyTorch's ceil_mode."""
    return 0, max(0, -(-(size - window) // stride) * stride + window - size)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _max_pool(window: int, stride: int, padding: Pads, x_BHWC: jax.Array) -> jax.Array:
    def compare(x_BHWC):
        if stride > 1 and x_BHWC.shape[1] * x_BHWC.shape[2] > SMALL:
            return _native(window, stride, padding, x_BHWC)
        parts = [part for _, _, part in _shifted(window, stride, _padded(x_BHWC, padding))]
        return jax.tree.reduce(jnp.maximum, parts)

    return lax.platform_dependent(x_BHWC, cpu=compare, default=partial(_native, window, stride, padding))


def _native(window: int, stride: int, padding: Pads, x_BHWC: Any) -> jax.Array:
    return nn.max_pool(x_BHWC, (window, window), (stride, stride), padding)


def _padded(x_BHWC: Any, padding: Pads) -> jax.Array:
    return jnp.pad(x_BHWC, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)


def _shifted(window: int, stride: int, x_BHWC: Any) -> Iterator[tuple[int, int, jax.Array]]:
    """(row, column, values at that offset of every window), row by row."""
    B, H, W, C = x_BHWC.shape
    down, across = (H - window) // stride * stride + 1, (W - window) // stride * stride + 1
    for i in range(window):
        for j in range(window):
            yield i, j, lax.slice(x_BHWC, (0, i, j, 0), (B, i + down, j + across, C), (1, stride, stride, 1))


def _forward(
    window: int, stride: int, padding: Pads, x_BHWC: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y_BhwC = _max_pool(window, stride, padding, x_BHWC)
    kind = jnp.uint8 if window <= 16 else jnp.uint32

    def unused(_):
        return jnp.zeros(y_BhwC.shape, kind)

    return y_BhwC, (
        x_BHWC,
        lax.platform_dependent(x_BHWC, cpu=partial(_which, window, stride, padding, kind), default=unused),
    )


def _which(window: int, stride: int, padding: Pads, kind: Any, x_BHWC: jax.Array) -> jax.Array:
    """The index of each largest value in its window.

    It is saved for the backward pass: there rematerialized values may be rounded differently, so that none
    would be equal to the largest.
    """
    (_, _, largest), *rest = _shifted(window, stride, _padded(x_BHWC, padding))
    which = jnp.zeros(largest.shape, kind)
    for n, (_, _, part) in enumerate(rest, 1):
        larger = part > largest
        largest, which = jnp.where(larger, part, largest), jnp.where(larger, jnp.asarray(n, kind), which)
    return which


def _backward(
    window: int, stride: int, padding: Pads, residuals: Any, dy_BhwC: jax.Array
) -> tuple[jax.Array]:
    def spread(x_BHWC, which_BhwC, dy_BhwC):
        (top, bottom), (left, right) = padding
        B, H, W, C = x_BHWC.shape
        H, W = H + top + bottom, W + left + right
        dx = jnp.zeros((B, H, W, C), x_BHWC.dtype)
        for n in range(window * window):
            edges = [
                (offset, size - offset - (count - 1) * stride - 1, stride - 1)
                for offset, size, count in zip(divmod(n, window), (H, W), dy_BhwC.shape[1:3], strict=True)
            ]
            selected = jnp.where(which_BhwC == n, dy_BhwC, 0)
            dx += lax.pad(selected, jnp.zeros((), dx.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
        return dx[:, top : H - bottom, left : W - right]

    def search(x_BHWC, which_BhwC, dy_BhwC):
        return jax.vjp(partial(_native, window, stride, padding), x_BHWC)[1](dy_BhwC)[0]

    return (lax.platform_dependent(*residuals, dy_BhwC, cpu=spread, default=search),)


_max_pool.defvjp(_forward, _backward)


def adaptive_mean_pool(x_BhwC: jax.Array, size: int) -> jax.Array:
    """Adaptive pooling: the map averaged to size x size; windows overlap where the size does not divide."""

    def along(x: jax.Array, axis: int) -> jax.Array:
        n = x.shape[axis]
        parts = [
            jax.lax.slice_in_dim(x, i * n // size, -(-(i + 1) * n // size), axis=axis).mean(axis)
            for i in range(size)
        ]
        return jnp.stack(parts, axis)

    return x_BhwC if x_BhwC.shape[1:3] == (size, size) else along(along(x_BhwC, 1), 2)
