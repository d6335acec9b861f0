"""A seed is one number wherever it is taken: two seeds never give the same, and what cannot be told apart is refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxmodels import keys
from jaxmodels.data.order import Order

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
def test_what_is_no_seed_is_refused_in_words(seed):
    with pytest.raises(
        ValueError, match=r"got .*; expected a whole number of 64 bits, below 2\^63. Choose another one"
    ):
        keys.root(seed)


def test_orders_of_large_seeds_differ_and_others_are_refused():
    orders = {tuple(Order(100, 100, seed, "wrap").indices(0, 0, 100).tolist()) for seed in [0, *LARGE]}
    assert len(orders) == 1 + len(LARGE)
    for seed in (2**63, -(2**63) - 1):
        with pytest.raises(ValueError, match=r"got .* for the data; expected a whole number of 64 bits"):
            Order(100, 100, seed, "wrap")
