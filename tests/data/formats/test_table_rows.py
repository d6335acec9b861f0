"""The rows of a table, one after another: whole, past broken ones, and for whatever bytes a file holds."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from jaxmodels.data.formats.table_rows import table_rows
from jaxmodels.data.formats.tables import read_table

TABLE = {
    "csv": 'a,b\n1,"x, ""y""\nz"\n2,\n',
    "tsv": 'a\tb\n1\tsays "so"\n2\t\n',
    "jsonl": '{"a": 1, "b": [1, 2]}\n\n{"a": null, "b": "x"}\n',
}
ROWS = {
    "csv": [{"a": "1", "b": 'x, "y"\nz'}, {"a": "2", "b": ""}],
    "tsv": [{"a": "1", "b": 'says "so"'}, {"a": "2", "b": ""}],
    "jsonl": [{"a": 1, "b": [1, 2]}, {"a": None, "b": "x"}],
}


@pytest.mark.parametrize("ending", TABLE)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_rows_come_as_the_file_has_them(tmp_path, ending, packed):
    path = tmp_path / (f"in.{ending}" + ".gz" * packed)
    content = TABLE[ending].encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    rows = list(table_rows(path))
    assert [row.values for row in rows] == ROWS[ending] and not any(row.error for row in rows)


def test_rows_of_parquet_have_their_types(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    values = [{"n": i if i % 3 else None, "text": "same" * (i % 2), "x": i / 2} for i in range(2000)]
    parquet.write_table(pyarrow.Table.from_pylist(values), tmp_path / "in.parquet")
    assert [row.values for row in table_rows(tmp_path / "in.parquet")] == values


def test_a_quote_that_is_never_closed_is_one_broken_row(tmp_path):
    (tmp_path / "in.csv").write_text('a,b\n1,2\n3,"open\n4,5\n')
    rows = list(table_rows(tmp_path / "in.csv"))
    assert rows[0].values == {"a": "1", "b": "2"} and "expected CSV text" in rows[1].error


@pytest.mark.parametrize("content", [b"", b"a,a\n1,2\n", b"a\0b\n"], ids=["empty", "twice", "binary"])
def test_a_file_without_a_header_is_refused(tmp_path, content):
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"in\.csv"):
        list(table_rows(tmp_path / "in.csv"))


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "in.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"expected one of \.csv \.tsv \.jsonl \.parquet"):
        table_rows(tmp_path / "in.xlsx")


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "csv.gz"])
def test_any_bytes_give_rows_or_an_error_in_words(tmp_path, ending):
    pytest.importorskip("pyarrow")
    random = np.random.default_rng(0)
    sound = (TABLE.get(ending.partition(".")[0], "PAR1") * 5).encode()
    for n in range(60):
        content = bytearray(gzip.compress(sound) if ending.endswith(".gz") else sound)
        for _ in range(int(random.integers(1, 8))):
            content[int(random.integers(len(content)))] = int(random.integers(256))
        path = tmp_path / f"{n}.{ending}"
        path.write_bytes(bytes(content))
        for reader in (table_rows, read_table):
            try:
                rows = reader(path)
                assert all(row.values or row.error for row in (rows if reader is table_rows else ()))
            except (ValueError, OSError) as error:
                assert str(error)


def test_a_whole_table_of_parquet_has_the_columns_of_its_rows(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"a": ["x", "y", "x"], "b": [1, 2, 3]}), tmp_path / "in.parquet")
    found = read_table(tmp_path / "in.parquet")
    rows = [row.values for row in table_rows(tmp_path / "in.parquet")]
    assert [{"a": str(a), "b": int(b)} for a, b in zip(found["a"], found["b"], strict=True)] == rows
