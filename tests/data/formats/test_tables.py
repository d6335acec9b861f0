"""Text tables as people write them: no line is lost, and impossible ones are refused with advice."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from jaxmodels.data.formats.tables import read_csv, read_jsonl, read_parquet, read_table
from jaxmodels.data.unpack import Unreadable

pytestmark = pytest.mark.fast


def write(tmp_path, text, name="x.csv"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / name


def test_a_stray_quote_in_a_tab_file_swallows_no_line(tmp_path):
    table = read_table(
        write(tmp_path, 'text\tlabel\n"Good start\t1\nplain\t0\nThe end"\t0\nlast\t1\n', "x.tsv")
    )
    assert table["text"].tolist() == ['"Good start', "plain", 'The end"', "last"]
    assert table["label"].tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("line", "want"),
    [
        ('"a ""b"" c"\t"1"', 'a "b" c'),  # as pandas and Excel write it
        ('"a\tb"\t1', "a\tb"),
        ('6" nails\t1', '6" nails'),
        ('"so" he said\t1', '"so" he said'),
        ('""\t1', ""),
        ('"\t1', '"'),
    ],
)
def test_quotes_in_a_tab_file_are_taken_off_where_they_enclose_a_field_and_are_letters_elsewhere(
    tmp_path, line, want
):
    table = read_table(write(tmp_path, f"text\tlabel\nfirst\t0\n{line}\n", "x.tsv"))
    assert table["text"].tolist() == ["first", want] and table["label"].tolist() == [0, 1]


def test_what_csv_writes_for_tabs_comes_back(tmp_path):
    import csv

    rows = [['say "hi"', "1"], ["a\tb", "2"], ["", "3"], ["'", "4"]]
    with open(tmp_path / "x.tsv", "w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([["t", "n"], *rows])
    assert read_table(tmp_path / "x.tsv")["t"].tolist() == [text for text, _ in rows]


def test_a_quoted_field_over_two_lines_is_one_in_csv_and_refused_between_tabs(tmp_path):
    assert read_csv(write(tmp_path, 'a,b\n"1\n2",3\n'))["a"].tolist() == ["1\n2"]
    with pytest.raises(
        Unreadable, match=r"line 2: got 1 values; expected 2 as in the first line\. Correct that line"
    ):
        read_table(write(tmp_path, 'a\tb\n"1\n2"\t3\n', "x.tsv"))


@pytest.mark.parametrize("mark", [";", "\t", "|"])
@pytest.mark.parametrize("rows", ["1{0}2\n3{0}4\n", "1,5{0}2\n"])
def test_another_delimiter_is_named(tmp_path, mark, rows):
    path = write(tmp_path, ("a{0}b\n" + rows).format(mark))
    with pytest.raises(Unreadable) as error:
        read_csv(path)
    assert f"Give delimiter={mark!r} if the file is written so" in str(error.value)


def test_one_column_whose_name_alone_has_a_semicolon_is_read(tmp_path):
    assert read_csv(write(tmp_path, "size; in m\n1\n2\n"))["size; in m"].tolist() == [1, 2]


def test_decimal_commas_are_numbers_when_asked_for(tmp_path):
    path = write(tmp_path, "a;b\n1,5;x,y\n-2,25;1,5\n")
    assert read_csv(path, delimiter=";")["a"].tolist() == ["1,5", "-2,25"]
    table = read_csv(path, delimiter=";", decimal=",")
    assert table["a"].tolist() == [1.5, -2.25] and table["b"].tolist() == ["x,y", "1,5"]


@pytest.mark.parametrize("name, mark", [("x.csv", ","), ("x.tsv", "\t")])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_end_of_line_and_a_byte_order_mark(tmp_path, name, mark, end):
    text = "\ufeff" + end.join([f"a{mark}b", f"1{mark}x", f"2{mark}y", ""])
    table = read_table(write(tmp_path, text, name))
    assert table["a"].tolist() == [1, 2] and table["b"].tolist() == ["x", "y"]


@pytest.mark.parametrize("name, mark", [("x.csv", ","), ("x.tsv", "\t")])
@pytest.mark.parametrize(
    "text, said",
    [
        ("", "got a first line of"),
        ("a{0}b\n", "got no lines below the first"),
        ("a{0}a\n1{0}2\n", "expected the name of each column, once"),
        ("a{0}b\n1{0}2\n3\n", "line 3: got 1 values; expected 2"),
        ("a{0}b\n1{0}2{0}3\n", "line 2: got 3 values; expected 2"),
        ("a{0}b\n1{0}\0\n", "got a NUL byte, as UTF-16"),
        ("a{0}b\n1{0}é\n".encode("latin-1"), "expected CSV text in UTF-8"),
        ("a{0}b\n1{0}2\n".encode("utf-16"), "got a NUL byte, as UTF-16|expected CSV text in UTF-8"),
    ],
)
def test_odd_tables_are_refused(tmp_path, name, mark, text, said):
    text = text.replace(b"{0}", mark.encode()) if isinstance(text, bytes) else text.format(mark)
    with pytest.raises(Unreadable, match=said):
        read_table(write(tmp_path, text, name))


def test_a_key_twice_in_an_object_of_json_is_refused(tmp_path):
    with pytest.raises(Unreadable, match="line 1: got a key twice in an object; expected a JSON object"):
        read_jsonl(write(tmp_path, '{"a": 1, "a": 2}\n', "x.jsonl"))


@pytest.mark.slow
def test_a_parquet_file_with_a_column_twice_is_refused_and_texts_come_back(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    twice = pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], names=["a", "a"])
    parquet.write_table(twice, tmp_path / "x.parquet")
    with pytest.raises(Unreadable, match=r"got the columns \['a', 'a'\], some twice; expected a whole one"):
        read_parquet(tmp_path / "x.parquet")
    texts = [None if i % 7 == 0 else f"word{i % 5}" for i in range(10_000)]
    columns = {"s": texts, "n": np.arange(10_000), "v": [[i, i] for i in range(10_000)]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "y.parquet")
    table = read_parquet(tmp_path / "y.parquet")
    assert table["s"].tolist() == [text or "" for text in texts]
    assert table["n"].tolist() == list(range(10_000)) and table["v"][9_999].tolist() == [9_999, 9_999]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_packed_text_is_what_the_text_is(tmp_path, ending):
    mark = "\t" if ending == "tsv" else ","
    lines = [f"a{mark}b"] + [f"{i}{mark}w{i}" for i in range(5_000)]
    if ending == "jsonl":
        lines = [json.dumps({"a": i, "b": f"w{i}"}) for i in range(5_000)]
    text = "\n".join(lines).encode()
    plain, packed = (
        write(tmp_path, text, f"x.{ending}"),
        write(tmp_path, gzip.compress(text), f"y.{ending}.gz"),
    )
    assert all(np.array_equal(read_table(packed)[name], read_table(plain)[name]) for name in ("a", "b"))
    assert read_table(plain)["a"].tolist() == list(range(5_000))
