"""Mixtures: each source within one row of its share, its rows in its own order, any row alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.data.mixture import LONGEST, Mixture, schedule, whole_parts
from jaxmodels.data.pipeline import ArrayPipeline

pytestmark = pytest.mark.fast


def source(k, n=50, batch=7, seed=None):
    """Examples that say which they are."""
    return ArrayPipeline({"x": 1000 * k + np.arange(n)}, batch=batch, seed=seed, remainder="wrap")


def mixture(weights, *, batch=8, seed=0):
    return Mixture({str(k): (source(k), w) for k, w in enumerate(weights)}, batch=batch, seed=seed)


def stream(data, steps):
    return np.concatenate([data.rows(i, 0, data.batch)["x"] for i in range(steps)])


@pytest.mark.slow
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 5))
def test_every_prefix_is_within_one_row_of_the_shares(weights, seed):
    found = stream(mixture(weights, seed=seed), 60) // 1000
    given_ = np.cumsum(found[:, None] == np.arange(len(weights)), 0)
    due = np.outer(np.arange(1, len(found) + 1), np.array(weights) / sum(weights))
    assert np.abs(given_ - due).max() < 1


@pytest.mark.slow
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 5))
def test_a_run_through_the_table_gives_each_source_its_parts(parts, seed):
    assert np.bincount(schedule(parts, seed)).tolist() == parts


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=6))
def test_parts_are_within_one_of_what_the_weights_ask_for(weights):
    parts = whole_parts(weights)
    shares = np.array(weights) / sum(weights)
    forced = (shares * LONGEST < 1).sum()  # those that get one part although less is due
    assert np.abs(np.array(parts) / sum(parts) - shares).max() < (1.01 + forced) / LONGEST


@pytest.mark.parametrize(
    "weights, parts",
    [([0.7, 0.2, 0.1], [7, 2, 1]), ([3, 1], [3, 1]), ([1 / 2, 1 / 4, 1 / 4], [2, 1, 1]), ([5.0], [1])],
)
def test_simple_ratios_are_exact(weights, parts):
    assert list(mixture(weights).parts.values()) == parts


def test_ratios_without_a_small_denominator_are_rounded():
    assert sum(whole_parts([2**0.5, 1, 1e-12])) == LONGEST
    assert min(whole_parts([2**0.5, 1, 1e-12])) == 1


@pytest.mark.parametrize("seed", [None, 4])
def test_each_source_goes_through_its_own_order(seed):
    data = Mixture({str(k): (source(k, seed=seed), w) for k, w in enumerate([5, 2, 1])}, batch=8)
    found = stream(data, 40)
    for k in range(3):
        own = found[found // 1000 == k]
        assert np.array_equal(own, stream(source(k, seed=seed), 60)[: len(own)])


def test_any_rows_are_a_slice_of_the_batch():
    data = mixture([5, 2, 1])
    for step in (0, 9, 10**9):
        whole = data.rows(step, 0, 8)
        for a, b in ((0, 0), (0, 3), (3, 8), (7, 8)):
            part = data.rows(step, a, b)
            assert all(np.array_equal(part[name], whole[name][a:b]) for name in whole)


def test_the_batch_size_does_not_change_the_stream():
    assert np.array_equal(stream(mixture([5, 2, 1], batch=8), 15), stream(mixture([5, 2, 1], batch=5), 24))


def test_a_seed_says_which_of_two_equal_sources_comes_first():
    assert {stream(mixture([1, 1], seed=seed), 1)[0] // 1000 for seed in range(8)} == {0, 1}


def test_a_pass_goes_through_every_source():
    data = Mixture({"small": (source(0, n=10), 1), "large": (source(1, n=100), 3)}, batch=4)
    found = stream(data, data.steps)
    assert len({*found}) == 110 and len({*found[:-16]}) < 110


def test_the_spec_is_that_of_the_sources():
    data = mixture([1, 2])
    assert data.spec == source(0).spec
    assert {name: (x.shape[1:], x.dtype) for name, x in data.rows(0, 0, 8).items()} == data.spec


def test_sources_that_differ_are_refused():
    other = ArrayPipeline({"y": np.arange(9)}, batch=3)
    with pytest.raises(ValueError, match=r"batches of b with .*of a with .*expected the same arrays"):
        _ = Mixture({"a": (source(0), 1), "b": (other, 1)}, batch=4).spec


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_that_is_no_share_is_refused(weight):
    with pytest.raises(ValueError, match=f"got the weight {weight} of a"):
        Mixture({"a": (source(0), weight)}, batch=4)


def test_no_sources_are_refused():
    with pytest.raises(ValueError, match="got 0 sources"):
        Mixture({}, batch=4)
    with pytest.raises(ValueError, match="batch: got 0"):
        Mixture({"a": (source(0), 1)}, batch=0)


def test_the_shares_are_told():
    assert mixture([3, 1]).describe() == "a mixture of 0 75.0%, 1 25.0%, in batches of 8"
