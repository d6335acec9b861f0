"""The rows of a table one after another, as dicts: of a file of any length, and past rows that are broken.

data/formats/tables.py reads whole tables as arrays; here a row that cannot be read is said, and the next one
is read.
"""

from __future__ import annotations

import csv
import json
import os
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxmodels.data.folders import existing_file
from jaxmodels.data.formats.csv_rows import Rows, open_csv
from jaxmodels.data.formats.json_file import once
from jaxmodels.data.formats.tables import LINE, decoded
from jaxmodels.data.libraries import library
from jaxmodels.data.unpack import FREE, TEXT_FREE, Allowance, Unreadable, open_text, reading, reason

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
BLOCK = 512  # rows of Parquet that are read at once


class Row(NamedTuple):
    """A row: its values by column, as text in CSV and TSV; or why it cannot be read."""

    values: dict[str, Any]
    error: str = ""


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether the name is that of a table of rows."""
    return Path(path).name.lower().removesuffix(".gz").endswith(ENDINGS)


def table_rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """The rows of a .csv, .tsv, .jsonl or .parquet file; the text formats may be gzipped.

    Raises Unreadable, possibly after some rows, where nothing more can be read.
    """
    path = existing_file(path, "a table")
    name = path.name.lower().removesuffix(".gz")
    if not name.endswith(ENDINGS):
        raise Unreadable(
            f"{path}: got a name that ends in {Path(name).suffix or 'nothing'}; expected one of "
            f"{' '.join(ENDINGS)}. Convert it to one of them"
        )
    if name.endswith(".parquet"):
        return _guarded(path, _parquet(path))
    delimiter = "\t" if name.endswith(".tsv") else ","
    return _guarded(path, _jsonl(path) if name.endswith(".jsonl") else _csv(path, delimiter))


def _guarded(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows; whatever a library raises for a broken file is Unreadable."""
    try:
        yield from rows
    except (Unreadable, OSError):
        raise
    except Exception as error:
        raise Unreadable(
            f"{path}: got {reason(error)}; expected a sound table. Get or write it again"
        ) from error


def _csv(path: Path, delimiter: str) -> Iterator[Row]:
    with open_csv(path, TEXT_FREE) as file:
        rows = Rows(file, delimiter)
        reader = iter(rows)
        header: list[str] | None = None
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                if header is None:
                    raise Unreadable(
                        f"{path}, line 1: got {error}; expected the name of each column. Correct it"
                    ) from error
                yield Row({}, f"got {error} before line {rows.line + 1}; expected CSV text. Correct it")
                continue
            except Unreadable:
                raise
            except (ValueError, OSError, EOFError) as error:
                raise Unreadable(
                    f"{path}, after line {rows.line}: got {reason(error)}; expected CSV text in UTF-8. Save "
                    "the file again"
                ) from error
            if header is None:
                header = _header(path, fields)
            elif len(fields) == len(header):
                yield Row(dict(zip(header, fields, strict=True)))
            elif fields:
                yield Row({}, f"got {len(fields)} values; expected {len(header)} as in the first line")
    if header is None:
        raise Unreadable(f"{path}: got an empty file; expected the name of each column. Add rows")


def _header(path: Path, fields: list[str]) -> list[str]:
    if not fields or len({*fields}) < len(fields):
        raise Unreadable(
            f"{path}: got a first line of {reprlib.repr(fields)}; expected the name of each column, once. "
            "Correct that line"
        )
    return fields


def _jsonl(path: Path) -> Iterator[Row]:
    with open_text(path, TEXT_FREE) as file:
        while True:
            with reading(f"{path}", "lines of JSON", "Get or write it again"):
                text = file.readline(LINE + 1)
            if not text:
                return
            if len(text) > LINE:
                raise Unreadable(
                    f"{path}: got a line of more than {LINE:,} bytes; expected one row a line. Split it"
                )
            if text.strip():
                yield _object(text)


def _object(text: bytes) -> Row:
    try:
        row = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        return Row({}, f"got {reason(error)}; expected a JSON object on the line. Correct it")
    if not isinstance(row, dict):
        return Row({}, f"got a JSON {type(row).__name__}; expected an object. Correct the line")
    return Row(row)


def _parquet(path: Path) -> Iterator[Row]:
    pyarrow = library("pyarrow", "reading Parquet")
    parquet = library("pyarrow.parquet", "reading Parquet", "pyarrow")
    broken = (f"{path} is no Parquet file that can be read", "a whole one, each column once")
    with reading(*broken, "Get or write it again"):
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
        if len({*schema.names}) < len(schema.names):
            raise ValueError(f"the columns {reprlib.repr(schema.names)}, some twice")
        texts = [field.name for field in schema if pyarrow.types.is_string(field.type)]
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        batches = file.iter_batches(batch_size=BLOCK)
        while True:
            with reading(*broken, "Get or write it again"):
                batch = next(batches, None)
                if batch is None:
                    return
                allowance = Allowance(path, FREE)
                columns = [decoded(column, allowance) for column in batch.columns]
                rows = pyarrow.RecordBatch.from_arrays(columns, schema.names).to_pylist()
            yield from map(Row, rows)
