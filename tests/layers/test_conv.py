"""Dimensions: B batch, H W image, C channels, F features."""

from __future__ import annotations

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.layers.conv import Conv, conv_general_dilated
from jaxmodels.layers.pool import max_pool
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.parallel.placement import batch_sharding

pytestmark = pytest.mark.fast

NUMBERS = ("NHWC", "HWIO", "NHWC")


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def both(x, w, strides=(1, 1), padding="SAME", **options):
    """Values and both gradients of ours, and of XLA's own convolution."""

    def value_and_grads(fn):
        def run(x, w):
            y, back = jax.vjp(
                lambda x, w: fn(x, w, strides, padding, dimension_numbers=NUMBERS, **options), x, w
            )
            return y, *back(jnp.cos(y))

        return jax.jit(run)(x, w)

    return value_and_grads(conv_general_dilated), value_and_grads(jax.lax.conv_general_dilated)


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "padding"),
    [
        ((2, 14, 15, 16), (3, 3, 16, 32), (1, 1), "SAME"),
        ((2, 30, 28, 6), (5, 5, 6, 32), (1, 1), "VALID"),
        ((2, 14, 14, 32), (3, 4, 32, 64), (1, 1), ((0, 2), (3, 1))),
        ((2, 15, 18, 16), (3, 3, 16, 33), (2, 3), "SAME"),
        ((2, 40, 40, 3), (7, 7, 3, 32), (2, 2), ((3, 3), (3, 3))),
        ((3, 5, 4, 6), (1, 1, 6, 7), (1, 1), "SAME"),
        ((3, 5, 4, 6), (1, 1, 6, 7), (2, 3), "SAME"),
    ],
    ids=["square", "wide", "odd", "strided", "stem", "pointwise", "strided pointwise"],
)
def test_values_and_gradients_are_those_of_xla_where_the_rule_takes_another_form(
    shape, kernel, strides, padding
):
    ours, xla = both(random(*shape), random(*kernel, seed=1), strides, padding)
    for a, b in zip(ours, xla, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(np.abs(b).max()))


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ((3, 3, 32, 16), {}),
        ((3, 3, 1, 32), {"feature_group_count": 32}),
        ((3, 3, 32, 32), {"rhs_dilation": (2, 2)}),
    ],
    ids=["few features", "depthwise", "dilated"],
)
def test_every_other_convolution_is_xlas_own(kernel, options):
    x, w = random(2, 28, 28, 32), random(*kernel)
    text = str(jax.make_jaxpr(lambda x, w: conv_general_dilated(x, w, (1, 1), "SAME", **options))(x, w))
    assert "custom_vjp" not in text and "conv_general_dilated" in text


@pytest.mark.slow
def test_the_layer_has_the_parameters_and_outputs_of_flax():
    x = random(2, 28, 28, 3)
    ours, theirs = Conv(32, (3, 3)), nn.Conv(32, (3, 3))
    params = jax.jit(ours.init)(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        jnp.shape, jax.eval_shape(theirs.init, jax.random.key(0), x)
    )
    np.testing.assert_allclose(
        jax.jit(ours.apply)(params, x), jax.jit(theirs.apply)(params, x), rtol=1e-5, atol=1e-5
    )


def test_accelerators_get_xlas_own_gradient_and_cpus_a_product():
    x, w = random(2, 28, 28, 32), random(3, 3, 32, 64)
    gradient = jax.jit(jax.grad(lambda w, x: conv_general_dilated(x, w, (1, 1), "SAME").sum()))

    def operations(platform: str) -> set[str]:
        return set(
            re.findall(
                r"stablehlo\.(\w+)", gradient.trace(w, x).lower(lowering_platforms=(platform,)).as_text()
            )
        )

    assert {"while", "dot_general"} <= operations("cpu")
    for platform in ("cuda", "tpu"):
        assert not {"while", "dot_general"} & operations(platform)


def test_in_bfloat16_the_sums_are_in_float32_and_the_gradient_in_bfloat16():
    x, w, dy = (
        random(*shape).astype(jnp.bfloat16) for shape in ((2, 28, 28, 32), (3, 3, 32, 64), (2, 28, 28, 64))
    )
    gradient = jax.jit(
        lambda w, x, dy: jax.vjp(lambda w: conv_general_dilated(x, w, (1, 1), "SAME"), w)[1](dy)[0]
    )
    ours, exact = gradient(w, x, dy), gradient(*(a.astype(np.float32) for a in (w, x, dy)))
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(ours.astype(np.float32), exact, rtol=2**-7, atol=2**-7)


@pytest.mark.slow
def test_a_batch_split_over_devices_stays_split():
    """No program gathers the batch: the kernel's gradient is summed over the devices."""
    mesh = make_mesh("data=2")
    split, whole = (
        batch_sharding(mesh, 0),
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
    )
    x, w = random(4, 28, 28, 32), random(3, 3, 32, 64)

    def loss(w, x):
        return (max_pool(conv_general_dilated(x, w, (1, 1), "SAME")) ** 2).sum()

    program = jax.jit(jax.grad(loss), in_shardings=(whole, split), out_shardings=whole).lower(w, x).compile()
    assert "all-reduce" in program.as_text() and "all-gather" not in program.as_text()
    want = jax.jit(jax.grad(loss))(w, x)
    np.testing.assert_allclose(program(w, x), want, rtol=1e-4, atol=1e-4 * float(np.abs(want).max()))


@pytest.mark.slow
def test_vmap_over_kernels_as_a_sweep_makes_it_equals_a_loop():
    x, w = random(2, 14, 14, 16), random(3, 3, 3, 16, 32)
    gradient = jax.grad(lambda w, x: (conv_general_dilated(x, w, (1, 1), "SAME") ** 2).sum())
    many = jax.jit(jax.vmap(gradient, (0, None)))(w, x)
    one = jax.jit(gradient)
    for i in range(3):
        np.testing.assert_allclose(many[i], one(w[i], x), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("image", "kernel", "by_rows"),
    [
        ((128, 14, 14, 32), (3, 3, 32, 64), True),
        ((8, 224, 224, 3), (7, 7, 3, 64), True),
        ((128, 28, 28, 32), (3, 3, 32, 16), False),  # too few features for the products to be large
        ((128, 28, 28, 1), (3, 3, 1, 32), False),  # or too few of what is unfolded
        ((128, 8, 8, 256), (3, 3, 256, 256), False),  # XLA's own unfolds so little well enough
    ],
)
def test_the_kernels_gradient_is_by_rows_for_images_of_14_x_14_and_more(image, kernel, by_rows):
    def total(w, x):
        return conv_general_dilated(x, w, (1, 1), "SAME").sum()

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (kernel, image)]
    assert ("dot_general" in str(jax.make_jaxpr(jax.grad(total))(*shapes))) == by_rows
