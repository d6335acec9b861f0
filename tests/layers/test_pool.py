"""Dimensions: B batch, H W image, C channels."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.layers.pool import adaptive_mean_pool, ceil_padding, max_pool

pytestmark = pytest.mark.fast

NONE = ((0, 0), (0, 0))
CASES = {
    "side by side": ((2, 6, 8, 3), 2, 2, NONE),
    "with a rest": ((2, 7, 9, 3), 2, 2, NONE),
    "by threes": ((2, 7, 9, 3), 3, 3, NONE),
    "at every position": ((2, 6, 5, 3), 3, 1, ((1, 1), (1, 1))),
    "overlapping": ((2, 9, 8, 3), 3, 2, NONE),
    "overlapping, as a ResNet's": ((2, 8, 7, 3), 3, 2, ((1, 1), (1, 1))),
    "over the far edge": ((2, 8, 6, 3), 3, 2, ((0, 1), (0, 1))),
    "large": ((1, 40, 30, 2), 3, 2, ((1, 0), (0, 1))),
}


@pytest.mark.parametrize("name", CASES)
def test_pooling_and_its_gradient_are_those_of_xla_also_where_values_are_equal(name):
    shape, window, stride, padding = CASES[name]
    x = (
        np.maximum(np.round(np.random.default_rng(0).normal(size=shape)), 0).astype(np.float32) - 1
    )  # many ties

    def value_and_grad(fn):
        def run(x):
            y, back = jax.vjp(fn, x)
            return y, back(jnp.arange(y.size, dtype=jnp.float32).reshape(y.shape) + 1)[0]

        return jax.jit(run)(x)

    got = value_and_grad(lambda x: max_pool(x, window, stride, padding))
    want = value_and_grad(lambda x: nn.max_pool(x, (window, window), (stride, stride), padding))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("size", "window", "stride"), [(7, 3, 2), (8, 3, 2), (7, 2, 2), (8, 2, 2), (5, 3, 3)]
)
def test_over_keeps_what_would_be_left_over(size, window, stride):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    pads = ceil_padding(size, window, stride)
    got = jax.jit(lambda x: max_pool(x, window, stride, (pads, pads)))(x)
    want = torch.nn.functional.max_pool2d(
        torch.tensor(x.transpose(0, 3, 1, 2)), window, stride, ceil_mode=True
    )
    np.testing.assert_array_equal(got, want.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize(("n", "size"), [(6, 6), (13, 6), (2, 3), (7, 2)])
def test_means_are_pytorchs_adaptive_average(n, size):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, n, n + 1, 3)).astype(np.float32)
    want = (
        torch.nn.functional.adaptive_avg_pool2d(torch.tensor(x.transpose(0, 3, 1, 2)), size)
        .numpy()
        .transpose(0, 2, 3, 1)
    )
    np.testing.assert_allclose(
        jax.jit(adaptive_mean_pool, static_argnums=1)(x, size), want, rtol=1e-5, atol=1e-6
    )
