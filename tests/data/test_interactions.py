"""Tables of users and items: ids, order of time, splits without a later action, and items not seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.data.interaction_splits import (
    as_documents,
    joined,
    last_items,
    leave_one_out,
    next_items,
    split_by_time,
)
from jaxmodels.data.interactions import (
    history,
    index_of,
    number_interactions,
    popularity,
    read_interactions,
)
from jaxmodels.data.negatives import Unseen, with_negatives, with_seen
from jaxmodels.runs.learned import Memory, OtherData

pytestmark = pytest.mark.fast

ROWS = "user,item,stars,when\nbea,tea,4,30\nal,tea,5,10\nbea,pie,2.5,20\nal,jam,1,40\nal,pie,3,20\n"


def table(tmp_path, text=ROWS, name="t.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def made(**columns):
    return number_interactions(columns.pop("user"), columns.pop("item"), **columns)


def test_a_table_is_read_in_order_of_time_with_ids_as_indices(tmp_path):
    data = read_interactions(table(tmp_path), rating="stars", time="when")
    assert data.users == ("al", "bea") and data.items == ("jam", "pie", "tea")
    assert data.user_N.tolist() == [0, 1, 0, 1, 0] and data.item_N.tolist() == [2, 1, 1, 2, 0]
    assert data.rating_N.tolist() == [5, 2.5, 3, 4, 1] and data.time_N.tolist() == [10, 20, 20, 30, 40]
    assert history(data).of(0).tolist() == [2, 1, 0]
    assert popularity(data, 3).tolist() == [1, 2, 2]


def test_whole_numbers_are_sorted_by_value_and_kept_as_their_digits():
    data = made(user=np.array([10, 9, 100]), item=np.array([2, 2, 1]))
    assert data.users == ("9", "10", "100") and data.user_N.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            ROWS + "al,tea,4,50\n",
            "got user al and item tea in rows 2 and 6.*expected each pair once.*repeated=",
        ),
        (ROWS + "al,,4,50\n", "got no item in row 6; expected an id in every row"),
        (ROWS + "al,egg,,50\n", "got no rating in row 6; expected a number in every row"),
        (ROWS + "al,egg,4,\n", "got no time in row 6"),
        (
            ROWS + "al,egg,4,May 3\n",
            "got a time of 'May 3' in row 6; expected numbers, such as seconds since 1970",
        ),
        (ROWS + "al,egg,good,50\n", "got a rating of 'good' in row 6; expected numbers"),
        (ROWS.replace("when", "date"), "expected one named 'when'.*by user=, item=, rating= and time="),
    ],
    ids=["twice", "no item", "no rating", "no time", "dates", "words", "no column"],
)
def test_what_a_table_lacks_is_said_with_its_row(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        read_interactions(table(tmp_path, text), rating="stars", time="when")


def test_actions_may_recur_where_that_is_said():
    data = made(user=["a", "a"], item=["x", "x"], repeated="keep")
    assert history(data).of(0).tolist() == [0, 0]


def test_a_run_keeps_the_ids_and_refuses_users_that_it_was_not_trained_with(tmp_path):
    memory = Memory()
    with memory.building():
        read_interactions(table(tmp_path), rating="stars", time="when")
    fewer = table(tmp_path, "user,item\nbea,pie\n")
    with memory.building():
        data = read_interactions(fewer)
        assert data.users == ("al", "bea") and data.user_N.tolist() == [1] and data.item_N.tolist() == [1]
    table(tmp_path, "user,item\nbea,pie\ncy,tea\n")
    with memory.building(), pytest.raises(OtherData, match=r"got the user 'cy'.*some of its 2 users"):
        read_interactions(fewer)


def test_an_unknown_user_is_named_with_the_nearest_known():
    assert index_of(("anna", "bert"), "bert", "user") == 1
    with pytest.raises(ValueError, match=r"got the user 'bart'; expected one of the 2 .* such as bert"):
        index_of(("anna", "bert"), "bart", "user")


actions = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=40
)


@given(actions, st.randoms(use_true_random=False))
def test_leave_one_out_trains_on_no_action_later_than_one_held_out(rows, random):
    random.shuffle(rows)
    user, item, time = map(np.array, zip(*rows, strict=True))
    data = made(user=user, item=item, time=time, repeated="keep")
    train, validation, test = leave_one_out(data)
    assert sum(len(part.user_N) for part in (train, validation, test)) == len(rows)
    for u in range(len(data.users)):
        of = [part.time_N[part.user_N == u] for part in (train, validation, test)]
        if (data.user_N == u).sum() < 3:
            assert len(of[0]) == (data.user_N == u).sum()
        else:
            assert len(of[1]) == len(of[2]) == 1
            assert of[0].max() <= of[1][0] <= of[2][0]


@given(actions.filter(lambda rows: len({time for *_, time in rows}) > 5))
def test_a_split_by_time_trains_on_no_action_as_late_as_one_held_out(rows):
    user, item, time = map(np.array, zip(*rows, strict=True))
    data = made(user=user, item=item, time=time, repeated="keep")
    try:
        train, validation, test = split_by_time(data, validation=0.3, test=0.3)
    except ValueError as error:
        assert "as actions of one time stay together" in str(error)
        return
    assert train.time_N.max() < validation.time_N.min() <= validation.time_N.max() < test.time_N.min()
    assert len(train.time_N) + len(validation.time_N) + len(test.time_N) == len(rows)


def test_a_split_by_time_needs_times_and_shares():
    with pytest.raises(ValueError, match="without times; expected the time of each"):
        split_by_time(made(user=["a"], item=["x"]), validation=0.1, test=0.1)
    with pytest.raises(ValueError, match=r"validation=0\.5 and test=0\.6; expected shares"):
        split_by_time(made(user=["a"], item=["x"], time=np.array([1])), validation=0.5, test=0.6)


def test_windows_end_in_the_newest_action_and_never_hold_their_own_target():
    data = made(user=[0, 0, 0, 0, 1, 2, 2, 2], item=[0, 1, 2, 3, 1, 3, 0, 2])
    train, validation, test = leave_one_out(data)
    windows = next_items(history(train), 3)
    assert windows["inputs"].tolist() == [[0, 0, 1]] and windows["targets"].tolist() == [[0, 0, 2]]
    assert windows["weight"].tolist() == [[0, 0, 1]]
    packed = as_documents(history(data), 2)
    assert packed["tokens"].tolist() == [2, 3, 4, 2, 4, 1, 3] and packed["offsets"].tolist() == [0, 3, 4, 7]
    asked = last_items(history(joined(train, validation)), test, 3)
    assert asked["user"].tolist() == [0, 2] and asked["inputs"].tolist() == [[1, 2, 3], [0, 4, 1]]
    assert asked["targets"].tolist() == [[0, 0, 4], [0, 0, 3]]


@given(st.integers(0, 2**63), st.integers(1, 20))
def test_negatives_are_items_that_the_user_has_not_seen(seed, n):
    data = made(user=[0, 0, 0, 1], item=[0, 1, 3, 2])
    unseen = Unseen(history(data), 6)
    user_B = np.array([0, 1, 0])
    drawn = unseen.draw(np.arange(3, dtype=np.uint64) + np.uint64(seed), user_B, n, np.array([2, 0, 5]))
    assert drawn.shape == (3, n)
    assert {*drawn[0]} <= {4, 5} and {*drawn[1]} <= {1, 3, 4, 5} and {*drawn[2]} <= {2, 4}


def test_negatives_are_uniform_over_what_is_left_and_refused_where_nothing_is():
    data = made(user=[0, 0], item=[0, 1])
    drawn = Unseen(history(data), 4).draw(np.arange(4000, dtype=np.uint64), np.zeros(4000, int), 1)
    assert abs((drawn == 2).mean() - 0.5) < 0.04
    with pytest.raises(ValueError, match="has 2 of 2 items; expected users with many items left"):
        Unseen(history(data), 2).draw(np.zeros(1, np.uint64), np.zeros(1, int), 1)


def test_batches_get_negatives_and_what_is_seen_by_the_position_in_the_stream():
    data = made(user=[0, 0, 1], item=[0, 1, 2])
    keys_B = np.arange(2, dtype=np.uint64)
    batch = {"user": np.array([1, 0]), "target": np.array([0, 2])}
    got = with_seen(history(data))(with_negatives(Unseen(history(data), 5), 3)(batch, keys_B), keys_B)
    assert got["seen"].tolist() == [[2, -1], [0, 1]] and got["negatives"].shape == (2, 3)
    assert not {*got["negatives"][0]} & {2, 0} and not {*got["negatives"][1]} & {0, 1, 2}
