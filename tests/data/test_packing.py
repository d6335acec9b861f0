"""Packed documents: every token once, none beside another document's, any row alone."""

from __future__ import annotations

from itertools import pairwise

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.data.formats.token_files import open_documents, open_tokens, write_tokens
from jaxmodels.data.packing import PackedPipeline, best_fit, dialogues
from jaxmodels.models.gpt import GPT
from jaxmodels.tasks.language import next_token

pytestmark = pytest.mark.fast

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=60).filter(lambda x: max(x) > 1)


def documents(lengths):
    """Tokens that are all different, so that a token identifies its document and its position."""
    offsets = np.cumsum([0, *lengths])
    return {"tokens": np.arange(offsets[-1], dtype=np.uint16), "offsets": offsets}


def one_pass(data, n=0):
    batches = [data.rows(n * data.steps + i, 0, data.batch) for i in range(data.steps)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def real(batch, name):
    return batch[name][batch["segments"] > 0]


@given(LENGTHS, st.sampled_from([None, 0, 7]))
def test_a_pass_holds_every_token_of_every_document_once(lengths, seed):
    data = PackedPipeline(documents(lengths), length=16, batch=4, seed=seed, remainder="pad")
    offsets = np.cumsum([0, *lengths])
    for n in range(2):
        batch = one_pass(data, n)
        all_but_last = [t for a, b in pairwise(offsets) for t in range(a, b - 1)]
        assert sorted(real(batch, "inputs")) == all_but_last
        assert sorted(real(batch, "targets")) == [t + 1 for t in all_but_last]


@given(LENGTHS)
def test_targets_are_the_next_tokens_of_the_same_document(lengths):
    batch = one_pass(PackedPipeline(documents(lengths), length=16, batch=4, seed=0))
    document = np.repeat(np.arange(len(lengths)), lengths)
    inputs, targets = real(batch, "inputs"), real(batch, "targets")
    assert (targets == inputs + 1).all() and (document[inputs] == document[targets]).all()


@given(LENGTHS)
def test_a_segment_is_one_stretch_of_one_document(lengths):
    batch = one_pass(PackedPipeline(documents(lengths), length=16, batch=4, seed=0))
    document = np.repeat(np.arange(len(lengths)), lengths)
    for inputs, segments in zip(batch["inputs"], batch["segments"], strict=True):
        for n in range(1, segments.max() + 1):
            own = inputs[segments == n]
            assert (np.diff(np.nonzero(segments == n)[0]) == 1).all() and (np.diff(own) == 1).all()
            assert len(set(document[own])) == 1


@given(LENGTHS)
def test_padding_comes_last_and_weighs_nothing(lengths):
    batch = one_pass(PackedPipeline(documents(lengths), length=16, batch=4))
    assert ((batch["segments"] > 0) == (batch["weight"] == 1)).all()
    padding = batch["segments"] == 0
    assert (np.diff(padding.astype(int)) >= 0).all()
    assert not batch["inputs"][padding].any() and not batch["targets"][padding].any()


@pytest.mark.parametrize("remainder", ["wrap", "drop", "pad"])
def test_any_rows_are_a_slice_of_the_batch(remainder):
    data = PackedPipeline(documents(range(2, 40)), length=16, batch=5, seed=3, remainder=remainder)
    for step in (0, data.steps - 1, 3 * data.steps + 1):
        whole = data.rows(step, 0, 5)
        for a, b in ((0, 0), (0, 1), (2, 5), (1, 4)):
            part = data.rows(step, a, b)
            assert all(np.array_equal(part[name], whole[name][a:b]) for name in whole)


def test_a_batch_does_not_depend_on_what_was_read_before():
    def data():
        return PackedPipeline(documents(range(2, 40)), length=16, batch=5, seed=3)

    used = data()
    for step in range(40):
        used.rows(step, 0, 5)
    assert all(np.array_equal(x, data().rows(6, 0, 5)[name]) for name, x in used.rows(6, 0, 5).items())


def test_wrapping_passes_are_complete_too():
    data = PackedPipeline(documents(range(2, 40)), length=16, batch=5, seed=3)
    rows, tokens = data.order.n, sum(n - 1 for n in range(2, 40))
    assert rows % 5
    inputs, segments = (
        np.concatenate([data.rows(i, 0, 5)[name] for i in range(rows)]) for name in ("inputs", "segments")
    )  # five passes
    found = [
        sorted(inputs[n * rows : (n + 1) * rows][segments[n * rows : (n + 1) * rows] > 0]) for n in range(5)
    ]
    assert all(one == found[0] and len(one) == tokens for one in found)


def test_passes_put_different_documents_together():
    data = PackedPipeline(documents([6] * 40), length=10, batch=4, seed=0)
    first, second = (
        {
            tuple(sorted(row[segments > 0]))
            for row, segments in zip(batch["inputs"], batch["segments"], strict=True)
        }
        for batch in (one_pass(data, 0), one_pass(data, 1))
    )
    assert len(first) == 20 and len(first & second) < 5


def test_other_seeds_give_another_order():
    one, two = (
        one_pass(PackedPipeline(documents([6] * 40), length=10, batch=4, seed=s))["inputs"] for s in (0, 1)
    )
    assert not np.array_equal(one, two)


def test_long_documents_are_split_into_whole_rows():
    data = PackedPipeline(documents([36]), length=10, batch=4)
    batch = data.rows(0, 0, 4)
    assert batch["inputs"][:3].tolist() == np.arange(30).reshape(3, 10).tolist()
    assert batch["targets"][3].tolist() == [31, 32, 33, 34, 35, 0, 0, 0, 0, 0]


def test_long_documents_are_truncated_where_asked():
    data = PackedPipeline(documents([36, 3]), length=10, batch=2, long="truncate")
    batch = data.rows(0, 0, 2)
    assert batch["targets"].tolist() == [list(range(1, 11)), [37, 38, *[0] * 8]]
    assert "25 tokens dropped" in data.describe()


def test_only_answers_weigh_where_there_are_some():
    answers = np.array([0, 0, 1, 1, 0, 1, 1], np.uint8)
    data = PackedPipeline({**documents([4, 3]), "answers": answers}, length=6, batch=1)
    batch = data.rows(0, 0, 1)
    assert batch["targets"].tolist() == [[1, 2, 3, 5, 6, 0]]
    assert batch["segments"].tolist() == [[1, 1, 1, 2, 2, 0]]
    assert batch["weight"].tolist() == [[0, 1, 1, 1, 1, 0]]


def test_dialogues_are_learned_in_their_answers_alone():
    data = PackedPipeline(
        dialogues([[([7, 8], False), ([9, 2], True), ([5], False), ([6], True)]]), length=6, batch=1
    )
    batch = data.rows(0, 0, 1)
    assert batch["targets"].tolist() == [[8, 9, 2, 5, 6, 0]]
    assert batch["weight"].tolist() == [[0, 1, 1, 0, 1, 0]]


def test_the_spec_is_that_of_the_batches_and_needs_no_data():
    data = PackedPipeline(documents([4, 3]), length=6, batch=1)
    assert {name: (x.shape[1:], x.dtype) for name, x in data.rows(0, 0, 1).items()} == data.spec
    assert PackedPipeline(lambda: 1 / 0, length=6, batch=1).spec == data.spec


def test_token_files_are_packed_without_being_read_whole(tmp_path):
    write_tokens(tmp_path / "x.npy", [np.arange(5), np.arange(5, 9)])
    read = {"tokens": open_tokens(tmp_path / "x.npy"), "offsets": open_documents(tmp_path / "x.npy")}
    data = PackedPipeline(lambda: read, length=8, batch=1)
    assert isinstance(data.arrays["tokens"], np.memmap)
    assert data.rows(0, 0, 1)["inputs"].tolist() == [[0, 1, 2, 3, 5, 6, 7, 0]]


def naive(sizes, length):
    """Best fit decreasing, one piece after the other: how many rows have how much in them."""
    rows = []
    for size in sorted(sizes, reverse=True):
        fits = [i for i, row in enumerate(rows) if row + size <= length]
        if fits:
            rows[max(fits, key=lambda i: rows[i])] += size
        else:
            rows.append(size)
    return sorted(rows)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=80))
def test_the_plan_is_that_of_best_fit_decreasing(sizes):
    row = best_fit(np.bincount(sizes, minlength=21), 20)
    assert sorted(np.bincount(row, sorted(sizes, reverse=True)).astype(int)) == naive(sizes, 20)


def test_documents_of_usual_lengths_leave_hardly_any_padding():
    lengths = np.random.default_rng(0).lognormal(4, 1, 2000).astype(int) + 2
    data = PackedPipeline(documents(lengths), length=256, batch=8)
    assert one_pass(data)["weight"].mean() > 0.98


@pytest.mark.slow
def test_packed_documents_have_the_loss_of_documents_alone():
    arrays = documents([3, 9, 2, 7, 5, 8, 4])
    task = next_token(GPT(64, 16, 8, 1, 2))
    data = PackedPipeline(arrays, length=16, batch=7)
    params, extra = jax.jit(task.init)(jax.random.key(0), data.rows(0, 0, 7))
    alone = {name: np.zeros((7, 16), dtype) for name, (_, dtype) in data.spec.items() if name != "segments"}
    for i, x in enumerate(np.split(arrays["tokens"], arrays["offsets"][1:-1])):
        for name, values in {"inputs": x[:-1], "targets": x[1:], "weight": 1}.items():
            alone[name][i, : len(x) - 1] = values
    packed, apart = (
        jax.jit(task.evaluate)(params, extra, batch)["loss"] for batch in (data.rows(0, 0, 7), alone)
    )
    assert data.order.n == 2 and float(packed.weight) == float(apart.weight) == 31
    assert float(packed.total) == pytest.approx(float(apart.total), rel=1e-5)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"tokens": np.arange(5), "offsets": np.array([0, 4])}, "from 0 to 5"),
        ({"tokens": np.arange(5), "offsets": np.array([0, 4, 3, 5])}, "never fall"),
        ({"tokens": np.arange(5), "offsets": np.arange(6)}, "got none of two tokens"),
        (
            {"tokens": np.arange(5), "offsets": np.array([0, 5]), "answers": np.ones(4)},
            "got 4 for 5 tokens",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        PackedPipeline(arrays, length=4, batch=1).rows(0, 0, 1)


def test_knobs_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="got length=0"):
        PackedPipeline({}, length=0, batch=1)
    with pytest.raises(ValueError, match="expected one of 'split', 'truncate'"):
        PackedPipeline({}, length=4, batch=1, long="drop")
