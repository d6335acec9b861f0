from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.data.order import Order, permute

pytestmark = pytest.mark.fast
REMAINDERS = ["wrap", "drop", "pad"]


def stream(order, steps):
    return np.concatenate([order.indices(step, 0, order.batch) for step in range(steps)])


@pytest.mark.slow
@given(n=st.integers(1, 5_000), key=st.integers(0, 2**64 - 1))
def test_a_permutation_is_a_bijection(n, key):
    assert np.array_equal(np.sort(permute(np.arange(n), n, key)), np.arange(n))


@pytest.mark.parametrize("n", [2**16 - 1, 2**16 + 1, 300_000])
def test_a_large_permutation_is_a_bijection(n):
    assert np.array_equal(np.sort(permute(np.arange(n), n, 7)), np.arange(n))


@given(position=st.integers(0, 2**40 - 1))
def test_a_permutation_beyond_32_bits_stays_inside_and_does_not_collide_nearby(position):
    n = 2**40 + 12_345
    sent = permute(np.arange(position, position + 100), n, 3)
    assert len(set(sent.tolist())) == 100 and sent.min() >= 0 and sent.max() < n


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 24, 97])
def test_over_many_keys_every_position_goes_everywhere_equally_often(n):
    trials = 4_000
    sent = np.stack([permute(np.arange(n), n, key) for key in range(trials)])
    for position in (0, 1, n // 2, n - 1):
        count = np.bincount(sent[:, position], minlength=n)
        chi2 = ((count - trials / n) ** 2 / (trials / n)).sum()
        assert chi2 < (n - 1) + 6 * np.sqrt(2 * (n - 1))  # six standard deviations above the mean


@pytest.mark.slow
def test_over_many_keys_two_neighbours_are_as_far_apart_as_chance_has_it():
    n, trials = 24, 6_000
    sent = np.stack([permute(np.arange(2), n, key) for key in range(trials)])
    count = np.bincount((sent[:, 1] - sent[:, 0]) % n, minlength=n)[1:]
    chi2 = ((count - trials / (n - 1)) ** 2 / (trials / (n - 1))).sum()
    assert chi2 < (n - 2) + 6 * np.sqrt(2 * (n - 2))


@given(n=st.integers(1, 60), batch=st.integers(1, 20), seed=st.one_of(st.none(), st.integers(0, 9)))
def test_wrap_shows_every_example_once_in_each_n_positions(n, batch, seed):
    order = Order(n, batch, seed, "wrap")
    got = stream(order, -(-3 * n // batch))[: 3 * n].reshape(3, n)
    assert np.array_equal(np.sort(got, 1), np.tile(np.arange(n), (3, 1)))


@given(n=st.integers(1, 60), batch=st.integers(1, 20), seed=st.one_of(st.none(), st.integers(0, 9)))
def test_pad_shows_every_example_once_a_pass_and_pads_only_its_end(n, batch, seed):
    order = Order(n, batch, seed, "pad")
    got = stream(order, 3 * order.steps).reshape(3, -1)
    assert got.shape[1] == order.steps * batch < n + batch
    assert np.array_equal(np.sort(got[:, :n], 1), np.tile(np.arange(n), (3, 1))) and (got[:, n:] == -1).all()


@given(n=st.integers(1, 60), batch=st.integers(1, 20), seed=st.one_of(st.none(), st.integers(0, 9)))
def test_drop_shows_full_batches_only_and_nothing_twice_a_pass(n, batch, seed):
    if batch > n:
        with pytest.raises(ValueError, match="makes no batch"):
            Order(n, batch, seed, "drop")
        return
    order = Order(n, batch, seed, "drop")
    got = stream(order, 3 * order.steps).reshape(3, -1)
    assert got.shape[1] == n - n % batch
    assert all(len(set(row)) == len(row) and min(row) >= 0 for row in got.tolist())


@pytest.mark.parametrize("remainder", REMAINDERS)
@pytest.mark.parametrize("n", [23, 50_000])
@pytest.mark.parametrize("seed", [None, 4])
def test_rows_of_a_batch_are_a_slice_of_it_whichever_way_they_are_asked_for(remainder, n, seed):
    order = Order(n, 7, seed, remainder)
    steps = np.array([0, 1, 5, 2, n // 7, 40_000])
    whole = order.indices(steps, 0, 7)
    for row, step in zip(whole, steps.tolist(), strict=True):
        assert np.array_equal(Order(n, 7, seed, remainder).indices(step, 2, 5), row[2:5])


def test_each_pass_is_shuffled_anew_and_each_seed_differently():
    passes = [
        Order(100, 100, seed, "wrap").indices(step, 0, 100).tolist() for seed in (0, 1) for step in (0, 1)
    ]
    assert len({tuple(p) for p in passes}) == 4


def test_threads_in_different_passes_do_not_disturb_each_other():
    order, alone = Order(30_000, 100, 1, "wrap"), Order(30_000, 100, 1, "wrap")
    steps = [n for pair in zip(range(60), range(300, 360), strict=True) for n in pair]
    expected = [alone.indices(n, 0, 100) for n in steps]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda n: order.indices(n, 0, 100), steps))
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))
