"""What 32 bits lose of 64: ids, times and overflow are found, measured quantities pass."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.data.formats.tables import read_csv, read_jsonl, read_parquet
from jaxmodels.data.narrowing import SHARE, loss

pytestmark = pytest.mark.fast

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("values", "row", "got"),
    [
        (np.array([1, 5_000_000_000]), 1, "5000000000"),
        (np.array([[1, 2], [3, -(2**31) - 1]]), 1, "-2147483649"),
        (np.array([2**32 - 1, 2**32], np.uint64), 1, "4294967296"),
        (np.array([0.5, np.nan, 1e39, 1.0]), 2, "1e+39"),
        (np.array([-1e300, np.inf]), 0, "-1e+300"),
        (np.array([1700000000.25, 1700000007.75]), 1, "1700000007.75, which is 1700000000.0 as float32"),
        (1.7e9 + np.arange(3600.0), 64, "1700000064.0, which is 1700000000.0"),
        (np.stack([np.arange(9.0), 4e15 + np.arange(9.0)], 1), 8, "column 1 of 2"),
    ],
)
def test_what_32_bits_would_change_is_found(values, row, got):
    found = loss(values)
    assert found is not None and got in found.got
    assert found.row == row and found.expected and found.do


MEASURED = {
    "heights": RANDOM.normal(1.7, 0.1, 1000),
    "pressure in pascal": RANDOM.normal(101_325, 400, 1000),
    "kelvin, to a hundredth": RANDOM.normal(293.15, 0.01, 1000),
    "population": np.array([331_002_651.0, 1_439_323_776, 82_000_001]),
    "a year of seconds": 1.7e9 + RANDOM.uniform(0, 3.2e7, 1000),
    "constant": np.full(9, 0.1),
    "constant but for the noise of 64 bits": np.array([0.1 + 0.2, 0.3, 0.3]),
    "tiny": RANDOM.normal(0, 1e-42, 50),
    "missing": np.array([0.1, np.nan, np.inf]),
    "one row": np.array([1700000000.25]),
    "whole numbers that fit": np.array([2**31 - 1, -(2**31)]),
    "empty": np.zeros((0, 3)),
}


@pytest.mark.parametrize("name", MEASURED)
def test_a_measured_quantity_passes(name):
    assert loss(MEASURED[name]) is None


def test_the_limit_is_what_it_says():
    """Uniform of width w around m; float32 has steps of s: rounding s / sqrt(12), deviation w / sqrt(12)."""
    s = 2.0**-23 * 2**30
    for factor, lost in ((1.2, False), (0.8, True)):
        width = factor * s / SHARE
        assert (loss(2**30 + 4 * s + RANDOM.uniform(0, width, 20_000)) is not None) == lost


def test_whole_numbers_are_rounded_where_they_are_used_as_floats():
    seconds = np.array([1700000000, 1700000007], np.int32)
    assert loss(seconds) is None
    found = loss(seconds, as_float=True)
    assert found is not None and found.got.startswith("1700000007.0, which is 1700000000.0")


def test_columns_of_text_files_keep_what_they_hold(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "time,large,x,id,gone,whole\n1700000000.25,1e39,0.5,1152921504606846977,NA,1\n1700000007.75,1,1.5,,na,5000000000\n"
    )
    table = read_csv(path)
    assert table["time"].dtype == np.float64 and table["time"].tolist() == [1700000000.25, 1700000007.75]
    assert table["large"].tolist() == [1e39, 1.0] and table["x"].dtype == np.float32
    assert table["id"].tolist() == ["1152921504606846977", ""] and table["gone"].tolist() == ["NA", "na"]
    assert table["whole"].dtype == np.int64 and table["whole"].tolist() == [1, 5_000_000_000]


def test_a_whole_number_that_a_missing_value_would_change_is_refused_by_its_column(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"id": 1152921504606846977, "x": 1.5, "none": null}\n{"id": null, "x": 2, "none": null}\n'
    )
    with pytest.raises(
        ValueError, match=r"t.jsonl: id: got 1152921504606846977 beside .* Write ids as texts"
    ):
        read_jsonl(path)
    assert read_jsonl(path, ["x"])["x"].tolist() == [1.5, 2.0]
    assert read_jsonl(path, ["none"])["none"].tolist() == ["", ""]


def test_parquet_keeps_whole_numbers_beside_missing_ones_or_refuses_them(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow")
    import pyarrow.parquet as parquet

    columns = {
        "id": [2**60 + 1, None],
        "lists": [[2**60 + 1, 1], [2, 3]],
        "small": [3, None],
        "none": [None, None],
    }
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table(columns), path)
    with pytest.raises(
        ValueError, match=r"t.parquet: id: got 1152921504606846977 beside missing values; expected"
    ):
        read_parquet(path)
    assert read_parquet(path, ["lists"])["lists"].tolist() == [[2**60 + 1, 1], [2, 3]]
    small = read_parquet(path, ["small"])["small"]
    assert small.dtype == np.float64 and small[0] == 3 and np.isnan(small[1])
    assert read_parquet(path, ["none"])["none"].tolist() == ["", ""]
