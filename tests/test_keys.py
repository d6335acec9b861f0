"""Two seeds never give the same key, what is no seed is refused, and every example has its own key."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmodels import keys, step
from jaxmodels.data.order import Order
from jaxmodels.task import Mean, Task

pytestmark = pytest.mark.fast

LARGE = [2**32, 2**32 + 1, 2**33, 2**63 - 1, -1, -5, -(2**63)]


@pytest.mark.parametrize("seed", [0, 1, 7, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_seed_of_32_bits_is_the_key_of_jax(seed):
    assert np.array_equal(jax.random.key_data(keys.root(seed)), jax.random.key_data(jax.random.key(seed)))


def test_larger_seeds_are_all_different():
    data = {
        tuple(np.asarray(jax.random.key_data(keys.root(seed))).tolist()) for seed in [0, 1, 2**32 - 1, *LARGE]
    }
    assert len(data) == 3 + len(LARGE)


@pytest.mark.parametrize("seed", [0, 5, 2**32 - 1, *LARGE])
def test_a_traced_seed_gives_the_same_key(seed):
    traced = jax.jit(lambda words: jax.random.key_data(keys.root(words)))(keys.words(seed))
    assert np.array_equal(traced, jax.random.key_data(keys.root(seed)))


@pytest.mark.parametrize("seed", [2**63, 2**64, -(2**63) - 1, 1.5, True, "1"])
def test_a_value_that_is_no_seed_is_refused(seed):
    with pytest.raises(
        ValueError, match=r"got .*; expected a whole number of 64 bits, below 2\^63\. Choose another one\."
    ):
        keys.root(seed)


def test_orders_of_large_seeds_differ_and_others_are_refused():
    orders = {tuple(Order(100, 100, seed, "wrap").indices(0, 0, 100).tolist()) for seed in [0, *LARGE]}
    assert len(orders) == 1 + len(LARGE)
    for seed in (2**63, -(2**63) - 1):
        with pytest.raises(ValueError, match=r"got .* for the data; expected a whole number of 64 bits"):
            Order(100, 100, seed, "wrap")


@pytest.mark.parametrize("numbers", [[0, 1, 2, 3], [5, 0, 2**31 - 1, 2**32 - 1]])
def test_keys_per_example_are_those_of_a_loop_over_fold_in(numbers):
    key, numbers_B = keys.root(7), np.array(numbers, np.uint32)
    expected = np.stack([jax.random.key_data(jax.random.fold_in(key, number)) for number in numbers_B])
    for per_example in (keys.per_example, jax.jit(keys.per_example)):
        np.testing.assert_array_equal(jax.random.key_data(per_example(key, numbers_B)), expected)


@pytest.mark.parametrize("number", [0, 3, 2**18])
def test_folded_keys_are_those_of_a_loop_over_the_examples(number):
    keys_B = jax.random.split(jax.random.key(1), 5)
    expected = np.stack([jax.random.key_data(jax.random.fold_in(key, number)) for key in keys_B])
    for fold in (keys.fold, jax.jit(keys.fold)):
        np.testing.assert_array_equal(jax.random.key_data(fold(keys_B, number)), expected)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_gives_each_example_the_key_of_its_step_and_row(accumulate):
    def loss(params, extra, batch, keys_B):
        row_B = batch["row"]
        got = jnp.zeros((6, 2)).at[row_B].set(jax.random.key_data(keys_B) % 2**16)
        return (
            Mean.of(0.0 * params["w"] * row_B, jnp.ones(len(row_B))),
            extra,
            {"keys": Mean(got, jnp.ones(()))},
        )

    task = Task(lambda key, batch: ({"w": jnp.zeros(())}, {}), loss, lambda *_: {})
    batch = {"row": jnp.arange(6)}
    state = step.init(task, optax.sgd(0.1), 3, batch)._replace(step=jnp.int32(11))
    _, metrics = step.make_step(task, optax.sgd(0.1), accumulate=accumulate)(state, batch)
    expected = [
        jax.random.key_data(jax.random.fold_in(jax.random.fold_in(state.key, 11), row)) % 2**16
        for row in range(6)
    ]
    np.testing.assert_array_equal(metrics["keys"].total, np.stack(expected))
