import gzip
import json
import struct
import zipfile

import numpy as np
import pytest

from jaxmodels.data.formats import tables
from jaxmodels.data.pipeline import ArrayPipeline

pytestmark = pytest.mark.fast


def idx(shape, data, kind=0x08):
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind, dtype", [(0x08, ">u1"), (0x0B, ">i2"), (0x0D, ">f4"), (0x0E, ">f8")])
def test_idx_gives_back_what_was_written_in_the_machines_own_byte_order(tmp_path, packed, kind, dtype):
    x = np.arange(24).reshape(2, 3, 4).astype(dtype)
    path = tmp_path / ("x.gz" if packed else "x")
    path.write_bytes(
        gzip.compress(idx(x.shape, x.tobytes(), kind)) if packed else idx(x.shape, x.tobytes(), kind)
    )
    got = tables.read_idx(path)
    assert np.array_equal(got, x) and got.dtype.isnative and got.flags.writeable


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "begins with nothing"),
        (b"\x89PNG1234", "begins with 89 50 4e 47"),
        (idx((3,), b"abc", kind=0x07), "begins with 00 00 07"),
        (idx((2, 2), b"abc"), "holds 3;"),
        (idx((2,), b"abc"), "holds 3 or more"),
        (idx((2**32 - 1,) * 8, b"abc"), "too short"),
        (b"\0\0\x08\x03\0\0", "too short"),
    ],
)
def test_a_bad_idx_file_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "bad-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        tables.read_idx(path)
    assert "bad-ubyte" in str(error.value)


def test_a_gzipped_idx_that_announces_more_than_it_can_hold_takes_no_memory(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx((1 << 30, 1 << 10), b"")))
    with pytest.raises(ValueError, match="too short"):
        tables.read_idx(path)


def test_a_damaged_gzip_is_refused_by_name(tmp_path):
    packed = gzip.compress(idx((1000,), np.random.default_rng(0).bytes(1000)))
    for name, content in (
        ("cut.gz", packed[:-100]),
        ("flipped.gz", packed[:500] + b"\0\0\0\0" + packed[504:]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            tables.read_idx(tmp_path / name)


def test_npz_and_npy_give_back_what_was_written(tmp_path):
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array([1.5, 2.5], np.float16)}
    for save, name in ((np.savez, "x.npz"), (np.savez_compressed, "y.npz")):
        save(tmp_path / name, **arrays)
        got = tables.read_npz(tmp_path / name)
        assert got.keys() == arrays.keys() and all(np.array_equal(got[k], arrays[k]) for k in arrays)
    np.save(tmp_path / "z.npy", arrays["a"])
    assert np.array_equal(tables.read_npy(tmp_path / "z.npy"), arrays["a"])
    assert np.array_equal(tables.read_table(tmp_path / "z.npy")["array"], arrays["a"])


def test_pickled_objects_are_refused_unopened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    np.save(tmp_path / "x.npy", np.array([Trap()], object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", a=np.array([Trap()], object))
    with pytest.raises(ValueError, match="plain arrays"):
        tables.read_npy(tmp_path / "x.npy")
    with pytest.raises(ValueError, match="plain arrays"):
        tables.read_npz(tmp_path / "x.npz")


def header(shape):
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def test_an_npy_or_npz_that_announces_more_than_it_holds_is_refused(tmp_path):
    (tmp_path / "x.npy").write_bytes(header((1 << 40,)) + b"12345678")
    with pytest.raises(ValueError, match=r"x\.npy is no \.npy"):
        tables.read_npy(tmp_path / "x.npy")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", header((1 << 40,)) + b"12345678")
    with pytest.raises(ValueError, match="header of"):
        tables.read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("ending", ["npy", "npz", "parquet"])
def test_a_truncated_file_is_refused_by_name(tmp_path, ending):
    path = tmp_path / f"cut.{ending}"
    if ending == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        import pyarrow

        parquet.write_table(pyarrow.table({"a": list(range(100))}), path)
    elif ending == "npz":
        np.savez(path, a=np.arange(100))
    else:
        np.save(path, np.arange(100))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=f"cut.{ending}"):
        tables.read_table(path)


def test_csv_columns_get_the_narrowest_type_that_keeps_them(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(
        'n,big,x,gap,id,word\n1,3000000000,1.5,1,33554433,a\n-2,5,1e3,,,"b, c"\n3,6,inf,NA,1,1_000\n'
    )
    table = tables.read_csv(path)
    kinds = {name: x.dtype.name for name, x in table.items()}
    assert (
        kinds["n"] == "int32"
        and kinds["big"] == "int64"
        and kinds["x"] == "float32"
        and kinds["gap"] == "float32"
    )
    assert kinds["id"] == "float64"  # float32 would change it
    assert np.isnan(table["gap"]).tolist() == [False, True, True]
    assert table["word"].tolist() == ["a", "b, c", "1_000"]
    assert list(tables.read_csv(path, ["x", "n"])) == ["x", "n"]


def test_a_table_goes_straight_into_a_pipeline(tmp_path):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"features,target\n1,2.5\n3,4.5\n"))
    data = ArrayPipeline(lambda: tables.read_table(path), batch=2)
    assert data.rows(0, 0, 2)["target"].tolist() == [2.5, 4.5]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "expected the name of each column, once"),
        (b"a,b\n", "no lines below"),
        (b"a,a\n1,2\n", "expected the name of each column, once"),
        (b"a,b\n1,2\n3\n", "line 3: got 1 values; expected 2"),
        (b"a,b\n1,\xff\xfe\n", "UTF-8"),
        (b'a,b\n1,"2\n', "near line"),
        (b"a\n" + b"x" * 200_000, "near line 2: got Error: field larger"),
    ],
)
def test_a_bad_csv_file_is_refused_with_the_line(tmp_path, content, message):
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        tables.read_csv(tmp_path / "bad.csv")
    assert "bad.csv" in str(error.value)


def test_a_column_that_is_not_there_is_named_beside_those_that_are(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column c: got the columns a, b"):
        tables.read_csv(tmp_path / "x.csv", ["a", "c"])


def test_jsonl_gives_numbers_strings_and_lists_of_equal_length(tmp_path):
    rows = [
        {"n": 1, "x": 2.5, "s": "a", "v": [1, 2], "flag": True, "gap": None},
        {"n": 3, "x": 4, "s": "b", "v": [3, 4], "flag": False, "gap": 2},
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    table = tables.read_jsonl(tmp_path / "x.jsonl")
    assert table["n"].tolist() == [1, 3] and table["x"].dtype == np.float32 and table["flag"].dtype == bool
    assert table["v"].tolist() == [[1, 2], [3, 4]] and table["s"].tolist() == ["a", "b"]
    assert np.isnan(table["gap"][0]) and table["gap"][1] == 2


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "an empty file"),
        (b'{"a": 1}\n{"b": 1}\n', r"line 2: got the keys \['b'\] in place of \['a'\]"),
        (b'{"a": 1}\n[1]\n', "line 2: got a list; expected a JSON object"),
        (b'{"a": 1}\n\n{"a": \n', "line 3: got Expecting value"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "line 2: got 'utf-8' codec"),
        (b'{"a": 1}\n' + b'{"a": ' + b"[" * 100_000 + b"\n", "line 2"),
        (b'{"a": [1]}\n{"a": [1, 2]}\n', "a: got lists of 1 to 2 values"),
        (b'{"a": 1}\n{"a": "x"}\n', "a: got values of types int, str"),
        (b'{"a": 100000000000000000000}\n', "too large"),
    ],
)
def test_a_bad_jsonl_file_is_refused_with_the_line_or_the_key(tmp_path, content, message):
    (tmp_path / "bad.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        tables.read_jsonl(tmp_path / "bad.jsonl")
    assert "bad.jsonl" in str(error.value) or "too large" in message


def test_parquet_gives_the_files_own_types(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"n": np.arange(3, dtype=np.int16), "s": ["a", "b", None], "v": [[1.0, 2.0]] * 3}
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    table = tables.read_parquet(tmp_path / "x.parquet")
    assert (
        table["n"].dtype == np.int16 and table["s"].tolist() == ["a", "b", ""] and table["v"].shape == (3, 2)
    )
    assert list(tables.read_parquet(tmp_path / "x.parquet", ["n"])) == ["n"]


@pytest.mark.parametrize(
    "read", [tables.read_idx, tables.read_npz, tables.read_npy, tables.read_csv, tables.read_jsonl]
)
def test_a_file_that_is_not_there_is_named(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone"):
        read(tmp_path / "gone")


def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"got a name that ends in \.xls; expected one of \.csv"):
        tables.read_table(tmp_path / "x.xls")
