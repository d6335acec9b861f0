"""Tables of many formats as arrays: read whole, never unpickled, and with a limit on what is unpacked (data/unpack.py).

What a table's reader gives goes straight into ArrayPipeline. A name that ends in .gz is unpacked on the way.

Columns of text files: whole numbers become int32 (int64 where that is too small), other numbers float32
(float64 where that does not hold every digit that is written, as of times in seconds), and everything else
strings (numpy's StringDType). A missing value (nothing, na, n/a, nan, null or none) is nan among numbers; a
column of nothing else is of strings. So is one of whole numbers that no type holds exactly, such as 2**60 + 1
beside a missing value: those are ids.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data.arrays import read_idx, read_npy, read_npz
from jaxmodels.data.narrowing import EXACT
from jaxmodels.data.unpack import FREE, TEXT_FREE, Allowance, Unreadable, existing, open_text, reading, reason

PathLike = str | os.PathLike[str]
Table = dict[str, np.ndarray]

LINE = 64 << 20  # bytes of a line of JSON at most
BLOCK = 4096  # rows that are read at once
FEW = 256  # rows of text that are turned into columns at once: more would start Python's garbage collector
MISSING = {"", "na", "n/a", "nan", "null", "none"}


def read_csv(
    path: PathLike,
    columns: Sequence[str] | None = None,
    *,
    delimiter: str = ",",
    decimal: Literal[".", ","] = ".",
    limit: int = TEXT_FREE,
) -> Table:
    """The columns of a CSV file whose first line names them; only those asked for, where any are.

    A field in quotes may hold the delimiter, ends of lines and, doubled, quotes (RFC 4180). With
    delimiter="\\t" a line is always a row, because text between tabs is mostly written without quoting:
    quotes around a whole field are taken off, as pandas and Excel write them, where the line then has the
    right number of fields; any other quote is a letter.
    decimal: "," reads 1,5 as a number. limit: of a packed file; see data/unpack.py.
    """
    choices.check("read_csv", "decimal", decimal, (".", ","))
    path = existing(path)
    reader = None
    try:
        raw = io.BufferedReader(_WithoutNul(open_text(path, limit)), 1 << 16)
        with io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
            reader = _Rows(file, delimiter)
            names, texts = _columns(path, reader, columns, delimiter)
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(
            f"{path}, near line {reader.line if reader else 1}: got {reason(error)}; expected CSV text in UTF-8. Mend "
            "that line, or save the file anew"
        ) from error
    if not texts or not texts[0]:
        raise Unreadable(f"{path}: got no lines below the first; expected a table of at least one. Add rows")
    found = {name: _from_texts(text) for name, text in zip(names, texts, strict=True)}
    if decimal == ",":
        for name, text in zip(names, texts, strict=True):
            x = _from_texts([word.replace(",", ".") for word in text if "." not in word])
            if len(x) == len(text) and x.dtype.kind in "iuf":
                found[name] = x
    return found


class _WithoutNul(io.RawIOBase):
    """Bytes of a text, which has no NUL."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        part = self._file.read(len(into))
        if b"\0" in part:
            raise ValueError("a NUL byte, as UTF-16 and binary files have them")
        into[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Rows:
    """The rows of a file as lists of fields, and the line that was read last."""

    def __init__(self, file: Iterable[str], delimiter: str):
        self._fields = 0  # of the first line
        self._read = 0
        self._csv = csv.reader(file, delimiter=delimiter, strict=True) if delimiter != "\t" else None
        self._rows: Iterator[list[str]] = self._between_tabs(file) if self._csv is None else self._csv

    @property
    def line(self) -> int:
        return self._read if self._csv is None else self._csv.line_num

    def __iter__(self) -> Iterator[list[str]]:
        return self._rows

    def _between_tabs(self, file: Iterable[str]) -> Iterator[list[str]]:
        for line in file:
            self._read += 1
            text = line.rstrip("\r\n")
            row = text.split("\t") if text else []
            if '"' in text:
                row = self._unquoted(text) or row
            self._fields = self._fields or len(row)
            yield row

    def _unquoted(self, text: str) -> list[str] | None:
        """The fields of a line quoted as CSV is; None where a quote does not end in it, or the fields are not as many."""
        try:
            (row,) = csv.reader([text], delimiter="\t", strict=True)
        except (csv.Error, ValueError):
            return None
        return row if len(row) == (self._fields or len(row)) else None


def _columns(
    path: Path, reader: _Rows, columns: Sequence[str] | None, delimiter: str
) -> tuple[list[str], list[list[str]]]:
    """Names and texts of the wanted columns."""
    rows = iter(reader)
    names = next(rows, [])
    if not names or len(set(names)) != len(names):
        hint = _other_delimiter("".join(names), delimiter)
        raise Unreadable(
            f"{path}: got a first line of {reprlib.repr(names)}; expected the name of each column, once. "
            f"{hint or 'Mend that line'}"
        )
    wanted = _chosen(path, names, columns)
    texts: list[list[str]] = [[] for _ in wanted]
    places = [names.index(name) for name in wanted]
    block: list[list[str]] = []
    for row in rows:
        if len(row) != len(names):
            if not row:
                continue
            hint = _other_delimiter(names[0], delimiter)
            raise Unreadable(
                f"{path}, line {reader.line}: got {len(row)} values; expected {len(names)} as in the first line. "
                f"{hint or 'Mend that line'}"
            )
        block.append(row)
        if len(block) == FEW:
            _add(texts, places, block)
            block = []
    if (
        not texts[0]
        and len(names) == 1
        and block
        and (hint := _other_delimiter(names[0], delimiter, block[0][0]))
    ):
        raise Unreadable(
            f"{path}: got one column, {reprlib.repr(names[0])}; expected the name of each. {hint}"
        )
    _add(texts, places, block)
    return wanted, texts


def _add(texts: list[list[str]], places: list[int], block: list[list[str]]) -> None:
    columns = list(zip(*block, strict=True))
    for text, place in zip(texts, places, strict=True):
        text += columns[place] if block else ()


def _other_delimiter(first: str, used: str, second: str | None = None) -> str:
    """What to write where the first line, and the second if given, hold a delimiter other than the one used."""
    for mark in ";\t|":
        if mark != used and mark in first and (second is None or mark in second):
            return f"Give delimiter={mark!r} if the file is written so"
    return ""


def read_jsonl(path: PathLike, columns: Sequence[str] | None = None, *, limit: int = TEXT_FREE) -> Table:
    """The keys of a file with one JSON object a line, all with the same keys; only those asked for, where any are.

    Lists become further dimensions, and must then be equally long. limit: of a packed file; see
    data/unpack.py.
    """
    path = existing(path)
    names: list[str] = []
    values: dict[str, list[Any]] = {}
    line = 0
    try:
        with open_text(path, limit) as file:
            while text := file.readline(LINE + 1):
                line += 1
                if len(text) > LINE:
                    raise ValueError(f"a line of more than {LINE:,} bytes")
                if not text.strip():
                    continue
                row = json.loads(text, object_pairs_hook=_object)
                if not isinstance(row, dict):
                    raise ValueError(f"a {type(row).__name__}")
                if not values:
                    names = list(row)
                    values = {name: [] for name in _chosen(path, names, columns)}
                if row.keys() != set(names):
                    raise ValueError(
                        f"the keys {reprlib.repr(sorted(row))} in place of {reprlib.repr(sorted(names))}"
                    )
                for name, column in values.items():
                    column.append(row[name])
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(
            f"{path}, line {line or 1}: got {reason(error)}; expected a JSON object with the keys of the first line. "
            "Mend that line"
        ) from error
    if not values:
        raise Unreadable(f"{path} is empty: got no line; expected a JSON object on each. Add some")
    return {name: _from_values(column, f"{path}: {name}") for name, column in values.items()}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice in an object")
    return found


def read_parquet(path: PathLike, columns: Sequence[str] | None = None, *, limit: int = FREE) -> Table:
    """The columns of a Parquet file; only those asked for, where any are. Types as in the file; a missing number is nan.

    A whole number that is changed by that, as 2**60 + 1 is, is refused. limit: bytes of the columns as
    arrays; see data/unpack.py.
    """
    path = existing(path)
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError("reading Parquet needs pyarrow; pip install 'jaxmodels[data]'") from error
    with reading(
        f"{path} is no Parquet file that can be read",
        "a whole one, each column once",
        "Get or write it again",
    ):
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
        if len(set(schema.names)) < len(schema.names):
            raise ValueError(f"the columns {reprlib.repr(schema.names)}, some twice")
        names = _chosen(path, schema.names, columns)
        allowance = Allowance(path, limit)
        texts = [field.name for field in schema if pyarrow.types.is_string(field.type)]
        with parquet.ParquetFile(path, read_dictionary=texts) as file:
            allowance.require(file.metadata.num_rows * len(names))
            batches = []
            for batch in file.iter_batches(batch_size=BLOCK, columns=names):
                whole = [_whole(batch.column(name), allowance) for name in names]
                batches.append(pyarrow.RecordBatch.from_arrays(whole, names))
        empty = pyarrow.schema([schema.field(name) for name in names]).empty_table()
        table = pyarrow.Table.from_batches(batches) if batches else empty
        return {name: _of_parquet(table.column(name), f"{path}: {name}") for name in names}


def _of_parquet(column: Any, where: str) -> np.ndarray:
    """A column as pyarrow has read it."""
    array = column.to_numpy()
    if array.dtype == object or str(column.type) == "null":
        return _from_values(column.to_pylist(), where)
    if column.null_count and "int" in str(
        column.type
    ):  # pyarrow makes them float64, with nan where they are missing
        for value in column.drop_null().to_numpy().tolist():
            if int(float(value)) != value:
                raise Unreadable(
                    f"{where}: got {value} beside missing values; expected whole numbers that float64 holds exactly. Write "
                    "ids as texts, fill what is missing, or leave the column out with columns="
                )
    return array


def _whole(column: Any, allowance: Allowance) -> Any:
    """A part of a column with its texts written out, which are counted before: one can stand in a million rows."""
    import pyarrow
    import pyarrow.compute as compute

    allowance.take(column.nbytes)
    if not isinstance(column, pyarrow.DictionaryArray):
        return column
    lengths = compute.binary_length(column.dictionary.cast("string"))
    allowance.take(compute.sum(lengths.take(column.indices)).as_py() or 0)
    return column.dictionary_decode()


def read_table(path: PathLike) -> Table:
    """A table in any of these formats, by the ending of its name: .csv .tsv .jsonl .npz .parquet, and .npy and .idx files,
    whose one array is named "array". The text formats and IDX may be gzipped.
    """
    name = Path(path).name.removesuffix(".gz")
    readers: dict[str, Callable[[PathLike], Table]] = {
        ".csv": read_csv,
        ".tsv": lambda path: read_csv(path, delimiter="\t"),
        ".jsonl": read_jsonl,
        ".npz": read_npz,
        ".npy": lambda path: {"array": read_npy(path)},
        ".idx": lambda path: {"array": read_idx(path)},
        ".parquet": read_parquet,
    }
    ending = (
        ".idx" if name.endswith("-ubyte") else Path(name).suffix
    )  # MNIST's own names: train-images-idx3-ubyte
    if ending not in readers:
        raise Unreadable(
            f"{path}: got a name that ends in {ending or 'nothing'}; expected one of {' '.join(readers)}. Convert it to one "
            "of them"
        )
    return readers[ending](path)


def _chosen(path: Path, names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    missing = sorted(set(columns or ()) - set(names))
    known = ", ".join(names[:30]) + " …" * (len(names) > 30)
    if columns is not None and not columns:
        raise Unreadable(f"{path}: got columns=[]; expected some of {known}. Leave it out for all")
    if missing:
        raise Unreadable(
            f"{path} has no column {', '.join(missing)}: got the columns {known}; expected those that are asked for. "
            "Ask for others, or mend the file"
        )
    return list(names if columns is None else columns)


def _from_texts(texts: list[str]) -> np.ndarray:
    """A column of CSV."""
    try:
        if all(text.strip().lower() in MISSING for text in texts):
            raise ValueError("nothing says that these are numbers")
        return _numbers([None if text.strip().lower() in MISSING else _number(text) for text in texts])
    except ValueError:
        return np.array(texts, np.dtypes.StringDType())


def _number(text: str) -> int | float:
    if "_" in text:  # Python reads 1_000 as a number; no table means that
        raise ValueError(text)
    try:
        return int(text)
    except ValueError:
        return float(text)


def _numbers(values: list[Any]) -> np.ndarray:
    """Numbers, None where one is missing."""
    kinds = {type(v) for v in values}
    whole = kinds <= {int, bool, type(None)}
    largest = max((abs(v) for v in values if type(v) is int), default=0)
    if largest >= 1 << 63:
        raise ValueError("a number is too large for an integer of 64 bits")
    if not (whole and type(None) not in kinds):
        for v in values:
            if type(v) is int and int(float(v)) != v:
                raise ValueError(
                    f"got {v} beside values that are missing or no whole numbers, and float64 does not hold it"
                )
    if whole and type(None) not in kinds:
        return np.array(values, bool if kinds == {bool} else np.int32 if largest < 1 << 31 else np.int64)
    numbers = np.array([math.nan if v is None else v for v in values], np.float64)
    return numbers.astype(np.float32) if _keeps_digits(numbers) else numbers


def _keeps_digits(numbers: np.ndarray) -> bool:
    """Whether float32 holds every digit that was written: whole numbers up to 2**24, others with seven digits at most."""
    there = numbers[np.isfinite(numbers)]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        kept = there.astype(np.float32).astype(np.float64)
        there, kept = there[kept != there], kept[kept != there]
        if np.abs(there).max(initial=0) > EXACT:
            return False
        scale = 10.0 ** (6 - np.floor(np.log10(np.abs(there))))
        return bool((np.round(kept * scale) / scale == there).all())


def _from_values(values: list[Any], where: str) -> np.ndarray:
    """A column of JSON or Parquet values."""
    flat = values
    shape: tuple[int, ...] = (len(values),)
    while flat and all(isinstance(v, list | np.ndarray) for v in flat):
        lengths = {len(v) for v in flat}
        if len(lengths) != 1:
            raise Unreadable(
                f"{where} holds lists of {min(lengths)} to {max(lengths)} values: got lists of several lengths; expected "
                "equally long ones, for an array. Leave the column out with columns=, or pad it"
            )
        shape += (lengths.pop(),)
        flat = [x for v in flat for x in (v.tolist() if isinstance(v, np.ndarray) else v)]
    if any(v is not None for v in flat) and all(isinstance(v, int | float | None) for v in flat):
        try:
            return _numbers(flat).reshape(shape)
        except ValueError as error:
            raise Unreadable(
                f"{where}: {error}; expected numbers that a type of 64 bits holds. Write ids as texts, fill what is "
                "missing, or leave the column out with columns="
            ) from error
    if all(isinstance(v, str | None) for v in flat):
        return np.array(["" if v is None else v for v in flat], np.dtypes.StringDType()).reshape(shape)
    kinds = sorted({type(v).__name__ for v in flat})
    raise Unreadable(
        f"{where} holds values of types {', '.join(kinds)}: got a column of several kinds; expected all numbers, all "
        "strings or lists of them. Write it so, or leave it out with columns="
    )
