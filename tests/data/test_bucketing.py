"""Dimensions: B rows of a batch, T tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.data.bucketing import Buckets, TextPipeline, join
from jaxmodels.data.pipeline import ArrayPipeline

pytestmark = pytest.mark.fast

TEXTS = [[1, 2, 3], [4], [], [5, 6, 7, 8, 9, 10], [11, 12]]
ARRAYS = {**join(TEXTS), "label": np.arange(5, dtype=np.int32)}


def test_a_batch_is_what_one_writes_by_hand():
    batch = TextPipeline(ARRAYS, length=4, batch=6).rows(0, 0, 6)
    inputs = [[1, 2, 3, 0], [4, 0, 0, 0], [0, 0, 0, 0], [5, 6, 7, 8], [11, 12, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(batch["inputs"], inputs)
    np.testing.assert_array_equal(batch["segments"], np.array(inputs) > 0)
    np.testing.assert_array_equal(batch["label"][:5], np.arange(5))
    np.testing.assert_array_equal(batch["weight"], [1, 1, 1, 1, 1, 0])


@pytest.mark.slow
@given(
    st.lists(st.lists(st.integers(1, 99), max_size=9), min_size=1, max_size=12).filter(any),
    st.integers(1, 10),
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(0, 3)),
)
def test_one_pass_holds_every_text_once_truncated_to_the_length(texts, length, batch, seed):
    data = TextPipeline(
        {**join(texts), "label": np.arange(len(texts))},
        length=length,
        batch=batch,
        seed=seed,
        remainder="pad",
    )
    seen = {}
    for step in range(data.steps):
        rows = data.rows(step, 0, batch)
        for b in np.nonzero(rows["weight"])[0]:
            real = rows["segments"][b] == 1
            assert rows["label"][b] not in seen and not rows["inputs"][b][~real].any()
            seen[int(rows["label"][b])] = rows["inputs"][b][real].tolist()
    assert seen == {i: text[:length] for i, text in enumerate(texts)}


def test_rows_are_a_slice_of_the_batch_in_any_pass():
    data = TextPipeline(ARRAYS, length=4, batch=4, seed=2)
    for step in (0, 1, 9):
        whole, part = data.rows(step, 0, 4), TextPipeline(ARRAYS, length=4, batch=4, seed=2).rows(step, 1, 3)
        assert all(np.array_equal(part[name], whole[name][1:3]) for name in whole)


def test_gather_on_the_device_equals_gather_on_the_host():
    data = TextPipeline(ARRAYS, length=4, batch=8)
    indices = data.indices(0, 0, 8)
    host = data.gather(data.arrays, indices)
    device = jax.jit(data.gather)(jax.tree.map(jnp.asarray, data.resident()), jnp.asarray(indices, jnp.int32))
    assert host.keys() == device.keys()
    assert all(
        np.array_equal(host[name], device[name]) and host[name].dtype == device[name].dtype for name in host
    )


def test_the_spec_is_that_of_the_batches_with_and_without_reading_the_data():
    def unread():
        raise AssertionError("the data was read")

    batch = TextPipeline(ARRAYS, length=4, batch=2).rows(0, 0, 2)
    want = {name: (x.shape[1:], x.dtype) for name, x in batch.items()}
    assert TextPipeline(ARRAYS, length=4, batch=2).spec == want
    assert TextPipeline(unread, length=4, batch=2, spec={"label": ((), np.dtype(np.int32))}).spec == want


def test_the_description_tells_how_many_texts_are_cut():
    assert (
        TextPipeline(ARRAYS, length=4, batch=2)
        .describe()
        .startswith("texts of 0 to 6 tokens, 20.0% truncated to 4: 5 ")
    )


@pytest.mark.parametrize("offsets", [[0, 2], [1, 3], [0, 2, 1, 3]], ids=str)
def test_offsets_that_do_not_divide_the_tokens_are_refused(offsets):
    with pytest.raises(
        ValueError,
        match=r"offsets of the texts: got .*from 0 to 3, the number of tokens. Make both with join",
    ):
        _ = TextPipeline({"tokens": np.arange(3), "offsets": np.array(offsets)}, length=4, batch=2).arrays


def test_another_number_of_labels_than_of_texts_is_refused():
    with pytest.raises(
        ValueError, match=r"got 5 of them and arrays of \{'label': 4\} rows; expected one row for each text"
    ):
        _ = TextPipeline({**ARRAYS, "label": np.zeros(4)}, length=4, batch=2).arrays


def test_texts_without_any_token_are_refused():
    with pytest.raises(
        ValueError, match=r"the texts: got no tokens; expected at least one. Look at the file"
    ):
        _ = TextPipeline(join([[], []]), length=4, batch=2).arrays


def test_a_length_of_no_tokens_is_refused():
    with pytest.raises(ValueError, match=r"got length=0; expected at least 1 token"):
        TextPipeline(ARRAYS, length=0, batch=2)


# Buckets


def several(seed=None, remainder=None, count=50, lengths=(2, 5, 8), batch=4, pool=3):
    """Texts of 0 to 9 tokens, each told by its label; and their pipeline, in batches of 4, pools of 3."""
    random = np.random.default_rng(1)
    texts = [random.integers(1, 99, n).tolist() for n in random.integers(0, 10, count)]
    arrays = {**join(texts), "label": np.arange(count)}
    data = TextPipeline(arrays, length=8, batch=batch, seed=seed, remainder=remainder)
    return texts, Buckets(data, lengths=lengths, pool=pool)


@pytest.mark.parametrize("remainder", ["pad", "wrap", "drop"])
@pytest.mark.parametrize("seed", [None, 0, -5])
def test_buckets_hold_what_a_pass_without_them_holds(seed, remainder):
    _, data = several(seed, remainder)
    plain = data.data
    assert data.steps == plain.steps
    for turn in (0, 2):
        steps = range(turn * data.steps, (turn + 1) * data.steps)
        got, want = (sorted(np.concatenate([d.indices(n, 0, 4) for n in steps])) for d in (data, plain))
        assert got == want


@pytest.mark.parametrize("seed", [None, 3])
def test_a_batch_is_as_long_as_the_smallest_bucket_that_holds_it(seed):
    texts, data = several(seed)
    found = set()
    for step in range(2 * data.steps):
        batch, indices = data.rows(step, 0, 4), data.indices(step, 0, 4)
        most = max(len(texts[i]) for i in indices if i >= 0)
        T = next((n for n in (2, 5, 8) if n >= most), 8)
        assert batch["inputs"].shape == batch["segments"].shape == (4, T)
        for row, real, i in zip(batch["inputs"], batch["segments"], indices, strict=True):
            assert row[real > 0].tolist() == (texts[i][:8] if i >= 0 else [])
        found.add(T)
        part = several(seed)[1].rows(step, 1, 3)
        assert all(np.array_equal(part[name], batch[name][1:3]) for name in batch)
    assert len(found) > 1
    assert data.spec["inputs"] == ((8,), np.dtype(np.int32))


def test_texts_of_similar_length_meet_and_batches_come_in_no_order_of_length():
    _, data = several(0, count=400, pool=25, batch=16, lengths=(1, 2, 3, 4, 5, 6, 7, 8))
    lengths = [data.rows(step, 0, 16)["inputs"].shape[1] for step in range(data.steps)]
    assert np.mean(lengths) < 5  # of 4.4 tokens; without pools nearly all batches have 8
    assert lengths != sorted(lengths) and lengths != sorted(lengths, reverse=True)


@pytest.mark.parametrize("lengths", [(), (8, 2), (8, 8), (2, 5)], ids=str)
def test_lengths_that_do_not_rise_are_refused(lengths):
    with pytest.raises(ValueError, match="expected lengths that rise to 8"):
        several(lengths=lengths)


def test_windows_that_end_in_the_newest_are_cut_at_their_beginning():
    inputs = np.array([[0, 0, 0, 1], [0, 0, 2, 3], [4, 5, 6, 7], [0, 0, 0, 8]], np.int32)
    data = ArrayPipeline({"inputs": inputs, "weight": (inputs > 0).astype(np.float32)}, batch=2)
    buckets = Buckets(data, lengths=(1, 4), padded="before")
    assert [buckets.rows(n, 0, 2)["inputs"].tolist() for n in (0, 1)] == [
        [[1], [8]],
        [[0, 0, 2, 3], [4, 5, 6, 7]],
    ]
    with pytest.raises(ValueError, match='got padded="before" and batches of'):
        Buckets(ArrayPipeline({"inputs": inputs}, batch=2), lengths=(4,), padded="before")
