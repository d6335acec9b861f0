"""Dimensions: B batch, F features, K outputs."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.models.mlp import MLP

pytestmark = pytest.mark.fast


def count(model, *shape):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
    return sum(x.size for x in jax.tree.leaves(shapes))


@pytest.mark.slow
def test_parameters_match_the_hand_count():
    """784 x 128 + 128 + 128 x 64 + 64 + 64 x 10 + 10."""
    assert count(MLP((128, 64), 10), 1, 28, 28) == 109_386


def test_without_hidden_layers_it_is_linear():
    assert count(MLP((), 3), 1, 5) == 5 * 3 + 3


@pytest.mark.slow
def test_it_equals_the_formula():
    model = MLP((4, 3), 2, nn.tanh)
    x_BF = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    params = jax.jit(model.init)(jax.random.key(1), x_BF)["params"]
    params = jax.tree.map(lambda p: p + 0.1, params)  # biases start at zero, where they would not be seen
    h = x_BF
    for name in ("hidden_0", "hidden_1"):
        h = np.tanh(h @ params[name]["kernel"] + params[name]["bias"])
    want = h @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)({"params": params}, x_BF), want, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_axes_after_the_first_are_flattened():
    model, x = MLP((4,), 2), np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    np.testing.assert_array_equal(model.apply(variables, x), model.apply(variables, x.reshape(3, 10)))


@pytest.mark.slow
def test_hidden_layers_drop_different_units():
    """With weights of one and a bias of one, the second layer's zeros can only be its own."""
    model, x = MLP((40, 40), 40, dropout=0.5), np.ones((1, 3), np.float32)
    params = jax.tree.map(jnp.ones_like, model.init(jax.random.key(0), x)["params"])
    params["head"]["kernel"] = jnp.eye(40)
    params["hidden_1"]["kernel"] = jnp.eye(40)
    y = np.asarray(jax.jit(model.apply)({"params": params}, x, jax.random.split(jax.random.key(0), 1)))[0] - 1
    assert set(np.round(y).astype(int)) == {
        0,
        2,
        18,
    }  # dropped; passed and first dropped; passed twice: (2 x 4 + 1) x 2


@pytest.mark.slow
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.lists(st.integers(1, 6), max_size=3),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_any_input_gives_a_row_of_outputs_for_each_example(shape, hidden, K, B):
    x = jnp.zeros((B, *shape))
    y, variables = jax.eval_shape(lambda x: MLP(tuple(hidden), K).init_with_output(jax.random.key(0), x), x)
    assert (y.shape, y.dtype) == ((B, K), jnp.float32)
    sizes = [prod(shape), *hidden, K]
    want = sum(a * b + b for a, b in pairwise(sizes))
    assert sum(p.size for p in jax.tree.leaves(variables)) == want
