"""Tables of time series: what is wrong with their times is said, and windows hold what followed."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.data.series import fitted, from_table, read_series
from jaxmodels.data.series_windows import SeriesWindows
from jaxmodels.runs.learned import Memory

pytestmark = pytest.mark.fast

DAYS = np.arange("2020-01-30", "2020-02-06", dtype="datetime64[D]").astype(str)


def table(rows=range(7), **columns):
    rows = list(rows)
    return {"day": DAYS[rows], "a": np.arange(7.0)[rows], **columns}


def windows(*values, **options):
    tables = [{"value": np.asarray(x, np.float32).reshape(len(x), -1)} for x in values]
    return SeriesWindows(lambda: tables, **{"history": 3, "horizon": 2, "batch": 4, **options})


def test_a_series_is_read_from_a_file_with_empty_fields_as_missing_values(tmp_path):
    path = tmp_path / "sales.csv"
    path.write_text("month,sales,holidays\n1949-01,112,1\n1949-02,,0\n1949-03,132,2\n")
    series = read_series(path, time="month", series=["sales"], known=["holidays"])
    np.testing.assert_array_equal(series.value_NC, [[112], [np.nan], [132]])
    assert series.known_NK.tolist() == [[1], [0], [2]] and str(series.time_N[-1]) == "1949-03"


def test_months_are_even_steps_and_so_are_numbers():
    dates = np.array(["2020-01-01", "2020-02-01", "2020-03-01"])
    for time in (dates, np.array([3, 5, 7]), np.array([0.1, 0.2, 0.3], np.float32)):
        assert len(from_table({"t": time, "a": np.arange(3.0)}, time="t", series=["a"]).value_NC) == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 2, 1], "2020-01-31.* row 2, which is before the one above.* Sort"),
        ([0, 1, 1, 2], "2020-01-31.* row 2, which is there twice.* Keep one"),
        ([0, 1, 4, 5], "2020-01-31.* and then 2020-02-03.*; expected steps of 86400 seconds.* gaps="),
    ],
)
def test_unsorted_times_duplicates_and_gaps_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        from_table(table(rows), time="day", series=["a"])


def test_uneven_times_texts_and_absent_columns_are_refused():
    with pytest.raises(ValueError, match=r"got 0 and then 3; expected steps of 2\. Give even steps"):
        from_table({"t": np.array([0, 3, 5]), "a": np.zeros(3)}, time="t", series=["a"], gaps="missing")
    with pytest.raises(ValueError, match="'a': got texts"):
        from_table(table(a=DAYS), time="day", series=["a"])
    with pytest.raises(ValueError, match="expected 'b' among them"):
        from_table(table(), time="day", series=["b"])
    with pytest.raises(ValueError, match="expected numbers, or dates"):
        from_table(table(day=np.array(["Monday"] * 7)), time="day", series=["a"])


def test_gaps_become_missing_values_where_that_is_asked_for():
    series = from_table(table([0, 1, 4, 6]), time="day", series=["a"], gaps="missing")
    np.testing.assert_array_equal(series.value_NC[:, 0], [0, 1, np.nan, np.nan, 4, np.nan, 6])
    assert [str(t)[:10] for t in series.time_N] == DAYS.tolist()
    with pytest.raises(ValueError, match="gaps beside columns that are known ahead"):
        from_table(table([0, 2, 3], k=np.ones(3)), time="day", series=["a"], known=["k"], gaps="missing")


def test_a_scaler_is_of_the_training_span_without_what_is_missing_and_belongs_to_the_run():
    memory = Memory()
    train = np.array([[1.0, 0], [3, np.nan], [np.nan, 4]])
    with memory.building():
        scaler = fitted("sales", train, ["a", "b"])
        again = fitted("sales", train * 9, ["a", "b"])
    assert scaler.mean_C.tolist() == [2, 2] == again.mean_C.tolist() and scaler.deviation_C.tolist() == [1, 2]
    np.testing.assert_allclose(scaler.restore(scaler.scale(train)), train, rtol=1e-6)
    assert [*memory.values] == ["sales: means and deviations"]


@pytest.mark.parametrize("column", [[2.0, 2, np.nan], [np.nan] * 3])
def test_a_constant_or_empty_column_is_refused_by_its_name(column):
    with pytest.raises(ValueError, match=r"'flat': got (2 alone|no value) in the 3 rows"):
        fitted("x", np.stack([np.arange(3.0), column], 1), ["a", "flat"])


def test_every_window_comes_once_with_what_followed_and_the_last_batch_is_padded():
    data = windows(np.arange(10.0))
    batches = [data.rows(step, 0, 4) for step in range(data.steps)]
    assert data.steps == 2
    whole = {name: np.concatenate([batch[name] for batch in batches])[..., 0] for name in data.spec}
    assert whole["weight"].tolist() == [[1, 1]] * 6 + [[0, 0]] * 2
    assert whole["history"][:6].tolist() == [[i, i + 1, i + 2] for i in range(6)]
    assert whole["target"][:6].tolist() == [[i + 3, i + 4] for i in range(6)]


@pytest.mark.parametrize("stride", [1, 3])
def test_no_window_lies_across_two_series(stride):
    starts = (0, 100, 200)
    data = windows(*(np.arange(s, s + n) for s, n in zip(starts, (5, 9, 12), strict=True)), stride=stride)
    batches = [data.rows(step, 0, 4) for step in range(data.steps)]
    whole = np.concatenate([np.concatenate([b["history"], b["target"]], 1)[..., 0] for b in batches])
    whole = whole[np.concatenate([b["weight"][:, 0, 0] for b in batches]) > 0]
    first = [s + i for s, n in zip(starts, (1, 5, 8), strict=True) for i in range(0, n, stride)]
    assert whole.tolist() == [[i, i + 1, i + 2, i + 3, i + 4] for i in first]


def test_what_is_missing_weighs_nothing_and_a_history_knows_only_its_past():
    x = np.array([np.nan, 1, np.nan, np.nan, 4, np.nan, 6])
    batch = windows(x).rows(0, 0, 4)
    assert batch["history"][0, :, 0].tolist() == [0, 1, 1] and batch["history"][2, :, 0].tolist() == [1, 1, 4]
    assert batch["weight"][:3, :, 0].tolist() == [[0, 1], [1, 0], [0, 1]]
    later = windows(np.where(np.arange(7) > 2, 99, x)).rows(0, 0, 1)
    assert np.array_equal(later["history"], batch["history"][:1])


def test_known_columns_reach_to_the_horizon():
    k = np.arange(12.0).reshape(6, 2)
    data = SeriesWindows(
        lambda: [{"value": np.zeros((6, 1)), "known": k}], history=3, horizon=2, batch=2, known=2
    )
    assert data.rows(0, 0, 2)["known"].tolist() == [k[:5].tolist(), k[1:].tolist()]
    assert {name: (x.shape[1:], x.dtype) for name, x in data.rows(0, 0, 2).items()} == dict(data.spec)


def test_windows_are_the_same_on_a_device():
    data = windows(np.arange(9.0), np.arange(7.0) * 2, seed=3)
    indices = np.append(data.indices(0, 0, 4), -1)
    on_device = data.gather(
        {k: jnp.asarray(x) for k, x in data.arrays.items()}, jnp.asarray(indices, jnp.int32)
    )
    for name, x in data.gather(data.arrays, indices).items():
        np.testing.assert_array_equal(on_device[name], x)


def test_a_series_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match=r"got a series of 4 steps; expected at least 5, a history of 3"):
        windows(np.arange(9.0), np.arange(4.0)).rows(0, 0, 1)
    with pytest.raises(ValueError, match=r"shape \(9, 1\); expected \(times, 2\)"):
        windows(np.arange(9.0), series=2).rows(0, 0, 1)
    with pytest.raises(ValueError, match="horizon=0"):
        windows(np.arange(9.0), horizon=0)
