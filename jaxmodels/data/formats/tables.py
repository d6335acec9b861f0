"""Tables of many formats as arrays: never unpickled, and with a limit on unpacked bytes (data/unpack.py).

The table of a reader goes straight into ArrayPipeline. A file whose name ends in .gz is unpacked as it is
read. data/formats/columns.py says which types the columns of text files get.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data.folders import existing_file
from jaxmodels.data.formats.array_files import read_idx, read_npy, read_npz
from jaxmodels.data.formats.columns import chosen, from_texts, from_values
from jaxmodels.data.formats.csv_rows import Rows, open_csv, read_columns
from jaxmodels.data.formats.json_file import once
from jaxmodels.data.libraries import library
from jaxmodels.data.unpack import FREE, TEXT_FREE, Allowance, Unreadable, open_text, reading, reason

PathLike = str | os.PathLike[str]
Table = dict[str, np.ndarray]

LINE = 64 << 20  # the most bytes of a line of JSON
BLOCK = 4096  # rows of Parquet that are read at once


def read_csv(
    path: PathLike,
    columns: Sequence[str] | None = None,
    *,
    delimiter: str = ",",
    decimal: Literal[".", ","] = ".",
    limit: int = TEXT_FREE,
) -> Table:
    """The columns of a CSV file whose first line names them; columns: only these.

    A field in quotes may hold the delimiter, ends of lines and, doubled, quotes (RFC 4180). With
    delimiter="\\t" a line is always a row, because text between tabs is mostly written without quoting:
    quotes around a whole field are removed, as pandas and Excel write them, where the line then has the right
    number of fields; any other quote is a letter.
    decimal: "," reads 1,5 as a number. limit: of a packed file; see data/unpack.py.
    """
    choices.check("read_csv", "decimal", decimal, (".", ","))
    path = existing_file(path)
    rows = None
    try:
        with open_csv(path, limit) as file:
            rows = Rows(file, delimiter)
            names, texts = read_columns(path, rows, columns, delimiter)
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(
            f"{path}, near line {rows.line if rows else 1}: got {reason(error)}; expected CSV text in UTF-8. "
            "Correct that line, or save the file again"
        ) from error
    if not texts or not texts[0]:
        raise Unreadable(f"{path}: got no lines below the first; expected a table of at least one. Add rows")
    return {name: _with_decimal(text, decimal) for name, text in zip(names, texts, strict=True)}


def _with_decimal(texts: list[str], decimal: str) -> np.ndarray:
    if decimal == "," and not any("." in text for text in texts):
        numbers = from_texts([text.replace(",", ".") for text in texts])
        if numbers.dtype.kind in "iuf":
            return numbers
    return from_texts(texts)


def read_jsonl(path: PathLike, columns: Sequence[str] | None = None, *, limit: int = TEXT_FREE) -> Table:
    """The keys of a file with one JSON object a line, all with the same keys; columns: only these.

    Lists become further dimensions, and must be of one length. limit: of a packed file; see data/unpack.py.
    """
    path = existing_file(path)
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
                row = json.loads(text, object_pairs_hook=once)
                if not isinstance(row, dict):
                    raise ValueError(f"a {type(row).__name__}")
                if not values:
                    names = list(row)
                    values = {name: [] for name in chosen(path, names, columns)}
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
            f"{path}, line {line or 1}: got {reason(error)}; expected a JSON object with the keys of the "
            "first line. Correct that line"
        ) from error
    if not values:
        raise Unreadable(f"{path}: got an empty file; expected a JSON object on each line. Add some")
    return {name: from_values(column, f"{path}: {name}") for name, column in values.items()}


def read_parquet(path: PathLike, columns: Sequence[str] | None = None, *, limit: int = FREE) -> Table:
    """The columns of a Parquet file; columns: only these. Types as in the file; a missing number is nan.

    A column of whole numbers with missing ones becomes float64; it is refused where that changes a number,
    such as 2**60 + 1. limit: bytes of the columns as arrays; see data/unpack.py.
    """
    path = existing_file(path)
    pyarrow = library("pyarrow", "reading Parquet")
    parquet = library("pyarrow.parquet", "reading Parquet", "pyarrow")
    with reading(
        f"{path} is no Parquet file that can be read",
        "a whole one, each column once",
        "Get or write it again",
    ):
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
        if len(set(schema.names)) < len(schema.names):
            raise ValueError(f"the columns {reprlib.repr(schema.names)}, some twice")
        names = chosen(path, schema.names, columns)
        allowance = Allowance(path, limit)
        texts = [field.name for field in schema if pyarrow.types.is_string(field.type)]
        with parquet.ParquetFile(path, read_dictionary=texts) as file:
            allowance.require(file.metadata.num_rows * len(names))
            batches = []
            for batch in file.iter_batches(batch_size=BLOCK, columns=names):
                parts = [decoded(batch.column(name), allowance) for name in names]
                batches.append(pyarrow.RecordBatch.from_arrays(parts, names))
        empty = pyarrow.schema([schema.field(name) for name in names]).empty_table()
        table = pyarrow.Table.from_batches(batches) if batches else empty
        return {name: _of_parquet(table.column(name), f"{path}: {name}") for name in names}


def _of_parquet(column: Any, name: str) -> np.ndarray:
    """A column of pyarrow as an array."""
    array = column.to_numpy()
    if array.dtype == object or str(column.type) == "null":
        return from_values(column.to_pylist(), name)
    # Of whole numbers with missing ones pyarrow makes float64, with nan where one is missing.
    if column.null_count and "int" in str(column.type):
        for value in column.drop_null().to_numpy().tolist():
            if int(float(value)) != value:
                raise Unreadable(
                    f"{name}: got {value} beside missing values; expected whole numbers that float64 holds "
                    "exactly. Write ids as texts, fill in missing values, or leave the column out with "
                    "columns="
                )
    return array


def decoded(column: Any, allowance: Allowance) -> Any:
    """A part of a column with its texts written out, counted first: one text can stand in a million rows."""
    import pyarrow
    import pyarrow.compute as compute

    allowance.take(column.nbytes)
    if not isinstance(column, pyarrow.DictionaryArray):
        return column
    lengths = compute.binary_length(column.dictionary.cast("string"))
    allowance.take(compute.sum(lengths.take(column.indices)).as_py() or 0)
    return column.dictionary_decode()


def read_table(path: PathLike) -> Table:
    """A table in any of these formats, by the ending of its name.

    .csv .tsv .jsonl .npz .parquet, and .npy and .idx files, whose one array is named "array". The text
    formats and IDX may be gzipped.
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
    mnist = name.endswith("-ubyte")  # MNIST's own names, such as train-images-idx3-ubyte
    ending = ".idx" if mnist else Path(name).suffix
    if ending not in readers:
        raise Unreadable(
            f"{path}: got a name that ends in {ending or 'nothing'}; expected one of {' '.join(readers)}. "
            "Convert it to one of them"
        )
    return readers[ending](path)
