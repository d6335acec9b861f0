"""Parts of a table or a folder: disjoint, complete, stratified, and the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.data.split import fold, part_of, split

pytestmark = pytest.mark.fast


def table(n: int = 100) -> dict[str, np.ndarray]:
    return {"id": np.arange(n), "label": np.arange(n) % 7 % 3, "name": np.array([f"n{i}" for i in range(n)])}


@pytest.mark.parametrize("by", [None, "label"])
def test_parts_are_disjoint_and_complete_and_keep_rows_together(by):
    parts = split(table(), 0.2, 15, by=by)
    assert [len(part["id"]) for part in parts] == [65, 20, 15]
    assert sorted(np.concatenate([part["id"] for part in parts]).tolist()) == list(range(100))
    for part in parts:
        assert part["name"].tolist() == [f"n{i}" for i in part["id"]] and (np.diff(part["id"]) > 0).all()


@pytest.mark.parametrize(("share", "n", "rows"), [(0.1, 10, 1), (0.25, 10, 3), (0.2, 7, 1), (0.3, 5, 2), (0.1, 364, 36)])
def test_a_share_is_rounded_with_halves_up(share, n, rows):
    assert [len(part["id"]) for part in split(table(n), share)] == [n - rows, rows]


def test_the_seed_alone_changes_the_parts():
    one, again, other = (split(table(), 0.5, seed=seed)[1]["id"].tolist() for seed in (1, 1, 2))
    assert one == again != other


@given(st.lists(st.integers(0, 4), min_size=12, max_size=80), st.floats(0.1, 0.9))
def test_every_label_has_its_share_of_both_parts_to_within_a_row(labels, share):
    label = np.array(labels)
    part = part_of(len(label), (share,), strata=label)
    size = np.floor(share * len(label) + 0.5)
    assert (part == 1).sum() == size
    for k in set(labels):
        assert abs((part[label == k] == 1).sum() - (label == k).sum() * size / len(label)) < 1


@given(st.integers(20, 90), st.integers(2, 6))
def test_folds_are_held_out_once_and_differ_by_a_row(n, folds):
    halves = [fold(table(n), i, folds=folds, by="label") for i in range(folds)]
    sizes = [len(held["id"]) for _, held in halves]
    assert max(sizes) - min(sizes) <= 1
    assert sorted(np.concatenate([held["id"] for _, held in halves]).tolist()) == list(range(n))
    for train, held in halves:
        assert sorted([*train["id"], *held["id"]]) == list(range(n))
        share = np.bincount(table(n)["label"], minlength=3) / folds
        assert (abs(np.bincount(held["label"], minlength=3) - share) < 2).all()


def test_words_are_labels_too():
    words = np.array(["cat", "dog", "dog", "dog"] * 5, np.dtypes.StringDType())
    _, held = split({"word": words}, 4, by="word")
    assert sorted(held["word"].tolist()) == ["cat", "dog", "dog", "dog"]


@pytest.mark.parametrize(
    ("held_out", "options", "said"),
    [
        ((), {}, r"got no size; expected that of each part after the first. Say split\(data, 0.1\)"),
        ((1.5,), {}, "got a part of 1.5; expected a share from 0 to 1, or a number of rows"),
        ((100,), {}, "got parts of 100 rows of 100; expected at least one row in each and one left"),
        ((0.001,), {}, "got parts of 0 rows of 100; expected at least one row"),
        ((0.1,), {"by": "kind"}, "got by='kind'; expected one of the columns id, label, name"),
    ],
)
def test_what_cannot_be_split_is_said(held_out, options, said):
    with pytest.raises(ValueError, match=said):
        split(table(), *held_out, **options)
