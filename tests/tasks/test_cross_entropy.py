"""The chunked loss against the whole one. Dimensions: B batch, T tokens, M width, V vocabulary."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmodels.task import value
from jaxmodels.tasks.cross_entropy import cross_entropy

pytestmark = pytest.mark.fast

B, T, M, V = 3, 7, 5, 11
RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(B, T, M)), jnp.float32)
TABLE = jnp.asarray(RANDOM.normal(size=(V, M)), jnp.float32)
TARGETS = jnp.asarray(RANDOM.integers(0, V, (B, T)))
WEIGHT = jnp.asarray(RANDOM.integers(0, 3, (B, T)) / 2, jnp.float32)


def by_optax(x, table, smoothing):
    labels = optax.smooth_labels(jax.nn.one_hot(TARGETS, V), smoothing)
    return (optax.softmax_cross_entropy(x @ table.T, labels) * WEIGHT).sum()


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 2 * B * V, 3 * B * V, 10**9])
def test_values_and_gradients_are_those_of_the_definition(chunk, smoothing):
    def loss(x, table):
        return cross_entropy(x, table, TARGETS, WEIGHT, smoothing=smoothing, chunk=chunk)[0].total * 3

    got, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(X, TABLE)
    want, wanted = jax.value_and_grad(lambda x, table: 3 * by_optax(x, table, smoothing), (0, 1))(X, TABLE)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for one, other in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 10**9])
def test_accuracy_counts_by_weight(chunk):
    right = (np.asarray(X @ TABLE.T).argmax(-1) == TARGETS) * WEIGHT
    got = cross_entropy(X, TABLE, TARGETS, WEIGHT, chunk=chunk)[1]
    assert value(got) == pytest.approx(float(right.sum() / WEIGHT.sum()))


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 10**9])
def test_a_token_of_weight_zero_does_not_count_even_where_it_is_not_finite(chunk):
    x = jnp.where((WEIGHT == 0)[..., None], jnp.inf, X)
    assert np.isfinite(cross_entropy(x, TABLE, TARGETS, WEIGHT, chunk=chunk)[0].total)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_tokens_times_the_vocabulary():
    V, M = 4096, 8

    def temporary(T, chunk):
        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, T, M), (V, M), (2, T))]
        grad = jax.grad(
            lambda x, table, weight: (
                cross_entropy(x, table, jnp.zeros((2, T), int), weight, chunk=chunk)[0].total
            ),
            (0, 1),
        )
        return jax.jit(grad).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    chunk = 2 * 16 * V
    assert temporary(1024, chunk) < 1.3 * temporary(128, chunk)
    assert temporary(1024, chunk) < temporary(1024, 10**9) / 10
