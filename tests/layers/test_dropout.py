"""Dropout with one key per example. Dimensions: B batch, F features."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.layers.dropout import dropout, fold

pytestmark = pytest.mark.fast

B, F = 6, 500


def keys(seed=0, n=B):
    return jax.random.split(jax.random.key(seed), n)


@pytest.mark.slow
def test_an_element_is_zero_or_scaled():
    x_BF = jnp.arange(1.0, B * F + 1).reshape(B, F)
    y_BF = dropout(x_BF, 0.2, keys())
    kept = np.asarray(y_BF != 0)
    np.testing.assert_allclose(y_BF[kept], x_BF[kept] / 0.8, rtol=1e-6)
    assert 0 < kept.sum() < kept.size


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_of_zeros_is_the_rate(rate):
    zeros = np.asarray(dropout(jnp.ones((B, F)), rate, keys()) == 0)
    assert abs(zeros.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / zeros.size)  # four standard deviations


def test_without_keys_or_rate_nothing_changes():
    x_BF = jnp.ones((B, F))
    assert dropout(x_BF, 0.5, None) is x_BF
    assert dropout(x_BF, 0.0, keys()) is x_BF


@pytest.mark.slow
def test_a_mask_belongs_to_the_example_wherever_it_lies():
    x_BF = jnp.ones((B, F))
    whole = dropout(x_BF, 0.5, keys())
    np.testing.assert_array_equal(dropout(x_BF[4:], 0.5, keys()[4:]), whole[4:])
    np.testing.assert_array_equal(dropout(x_BF, 0.5, keys()[::-1]), whole[::-1])


def test_examples_and_keys_have_masks_of_their_own():
    masks = [
        np.asarray(dropout(jnp.ones((B, F)), 0.5, k))
        for k in (keys(), keys(1), fold(keys(), 0), fold(keys(), 1))
    ]
    assert len({mask.tobytes() for mask in masks}) == 4
    assert len({row.tobytes() for mask in masks for row in mask}) == 4 * B


def test_folding_nothing_is_nothing():
    assert fold(None, 3) is None


def test_the_rate_may_be_a_traced_value():
    x_BF = jnp.ones((B, F))
    traced = jax.jit(lambda rate: dropout(x_BF, rate, keys()))(0.3)
    np.testing.assert_allclose(traced, dropout(x_BF, 0.3, keys()), rtol=1e-6)


def test_the_gradient_is_the_mask():
    x_BF = jnp.ones((B, F))
    gradient = jax.grad(lambda x: dropout(x, 0.5, keys()).sum())(x_BF)
    np.testing.assert_allclose(gradient, dropout(x_BF, 0.5, keys()), rtol=1e-6)


@given(st.lists(st.integers(1, 4), max_size=3), st.sampled_from([jnp.float32, jnp.bfloat16]))
def test_shape_and_type_stay(shape, dtype):
    x = jax.ShapeDtypeStruct((B, *shape), dtype)
    y = jax.eval_shape(lambda x: dropout(x, 0.5, keys()), x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize("rate", [1.0, 1, -0.1])
def test_a_rate_that_keeps_nothing_or_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="expected 0 to below 1"):
        dropout(jnp.ones((B, F)), rate, keys())


@pytest.mark.slow
def test_elements_examples_steps_and_layers_are_independent():
    n = 4000

    def step(seed):
        return dropout(jnp.ones((n, 32)), 0.5, keys(seed, n))

    masks = [
        np.asarray(m != 0, np.float64)
        for m in (step(0), step(1), dropout(jnp.ones((n, 32)), 0.5, fold(keys(0, n), 1)))
    ]
    columns = np.concatenate([*masks, np.roll(masks[0], 1, axis=0)], axis=1)  # and the next example's
    correlation = np.corrcoef(columns.T)[np.triu_indices(columns.shape[1], 1)] * np.sqrt(n)
    assert np.abs(correlation).max() < 5  # of 8,128 standard normal numbers
    assert 0.95 < correlation.std() < 1.05


@pytest.mark.slow
@given(st.floats(0.01, 0.99))
def test_a_rate_gives_the_same_mask_traced_or_not(rate):
    rate, x_BF = float(np.float32(rate)), jnp.ones((B, F))

    def zeros(rate):
        return dropout(x_BF, rate, keys()) == 0

    np.testing.assert_array_equal(jax.jit(zeros)(rate), zeros(rate))
