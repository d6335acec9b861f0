import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.data.pipeline import WindowPipeline

pytestmark = pytest.mark.fast


@given(tokens=st.integers(2, 80), length=st.integers(1, 16), batch=st.integers(1, 5), data=st.data())
def test_windows_score_each_token_but_the_first_exactly_once_with_and_without_overlap(
    tokens, length, batch, data
):
    overlap = data.draw(st.integers(0, length - 1))
    windows = WindowPipeline(np.arange(tokens), length=length, batch=batch, overlap=overlap)
    batches = [windows.rows(step, 0, batch) for step in range(windows.steps)]
    scored = np.concatenate([b["targets"][b["weight"] > 0] for b in batches])
    assert np.array_equal(np.sort(scored), np.arange(1, tokens))


@given(tokens=st.integers(20, 80), length=st.integers(2, 12), seed=st.one_of(st.none(), st.integers(0, 5)))
def test_targets_are_the_inputs_shifted_by_one(tokens, length, seed):
    windows = WindowPipeline(np.arange(tokens), length=length, batch=4, stride=1, seed=seed)
    batch = windows.rows(0, 0, 4)
    real = batch["weight"] > 0
    assert real.any() and np.array_equal(batch["targets"][real], batch["inputs"][real] + 1)


def test_a_token_scored_behind_an_overlap_is_seen_with_that_much_context():
    windows = WindowPipeline(np.arange(40), length=10, batch=8, overlap=6)
    batch = windows.rows(0, 0, 8)
    for row in range(1, 8):
        scored = np.nonzero(batch["weight"][row])[0]
        assert not len(scored) or scored[0] >= 6


def test_rows_are_a_slice_of_the_batch():
    windows = WindowPipeline(np.arange(100) % 7, length=9, batch=6, seed=2)
    for step in (0, 1, 5):
        whole, part = windows.rows(step, 0, 6), windows.rows(step, 2, 5)
        assert all(np.array_equal(part[name], whole[name][2:5]) for name in whole)


@pytest.mark.slow
def test_gather_on_jax_arrays_equals_gather_on_numpy():
    windows = WindowPipeline((np.arange(100) % 7).astype(np.uint8), length=9, batch=16, overlap=3)
    indices = windows.indices(0, 0, 16)
    host = windows.gather(windows.arrays, indices)
    device = windows.gather(
        {"tokens": jnp.asarray(windows.arrays["tokens"])}, jnp.asarray(indices, jnp.int32)
    )
    assert all(np.array_equal(host[name], np.asarray(device[name])) for name in host)
