"""Answers as columns beside those of their inputs: one table in a file, however long it is."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from jaxmodels.data.libraries import library
from jaxmodels.runs.files import replacing

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
OTHERS = (".json", ".txt", ".xlsx", ".xls", ".html", ".gz", ".npz", ".png", ".jpg")  # names of no folder
BLOCK = 1024  # rows that are written at once


def table_path(out: str | os.PathLike[str]) -> Path | None:
    """The path of a table; None where it is that of a folder."""
    path = Path(out)
    ending = path.suffix.lower()
    if ending in OTHERS and not path.is_dir():
        raise ValueError(
            f"{path}: got a name that ends in {ending}; expected {' '.join(ENDINGS)} for a table, or a "
            "folder for drawings. Choose another"
        )
    return path if ending in ENDINGS and not path.is_dir() else None


def added(row: Iterable[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, each called predicted_NAME where the row has a column of that name."""
    taken = {*row}
    named: dict[str, Any] = {}
    for name, value in values.items():
        while name in taken:
            name = f"predicted_{name}"
        taken.add(name)
        named[name] = value
    return named


class Spool:
    """Rows kept in a temporary file, with the names of all columns, in the order in which they came."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.columns: dict[str, None] = {}

    def add(self, row: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Adds an input's row, with its answer."""
        whole = {**row, **added(row, values)}
        self.columns.update(dict.fromkeys(whole))
        self._file.write(json.dumps(whole, default=str).encode() + b"\n")

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every row."""
        self._file.seek(0)
        for line in self._file:
            yield json.loads(line)


@contextmanager
def writing(path: Path) -> Iterator[Spool]:
    """Writes the rows added to what this gives, at the end: the file is whole, or as it was before.

    In .csv, .tsv and .parquet what a cell cannot hold, such as a dict, is written as JSON.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as file:
        spool = Spool(file)
        yield spool
        with replacing(path) as out:
            _WRITERS[path.suffix.lower()](spool, out)


def _write_csv(spool: Spool, out: BinaryIO, delimiter: str = ",") -> None:
    text = io.TextIOWrapper(out, "utf-8", "backslashreplace", newline="", write_through=True)
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(spool.columns)
    for row in spool.rows():
        writer.writerow(_cell(row.get(name)) for name in spool.columns)
    text.flush()
    text.detach()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _write_jsonl(spool: Spool, out: BinaryIO) -> None:
    from jaxmodels.runs.metrics_file import finite

    for row in spool.rows():
        out.write(json.dumps(finite(row), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def _write_parquet(spool: Spool, out: BinaryIO) -> None:
    pyarrow = library("pyarrow", "writing Parquet")
    parquet = library("pyarrow.parquet", "writing Parquet", "pyarrow")
    kinds: dict[str, set[type]] = {name: set() for name in spool.columns}
    for row in spool.rows():
        for name, value in row.items():
            if value is not None:
                kinds[name].add(str if isinstance(value, int) and abs(value) >= 1 << 63 else type(value))
    types = {name: _kind_of(found) for name, found in kinds.items()}
    arrow = {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    schema = pyarrow.schema([(name, arrow[kind]) for name, kind in types.items()])
    with parquet.ParquetWriter(out, schema) as writer:
        block: list[dict[str, Any]] = []
        for row in spool.rows():
            block.append({name: _typed(row.get(name), kind) for name, kind in types.items()})
            if len(block) == BLOCK:
                writer.write_table(pyarrow.Table.from_pylist(block, schema))
                block = []
        writer.write_table(pyarrow.Table.from_pylist(block, schema))


def _kind_of(found: set[type]) -> type:
    """The type of a column that holds values of these."""
    if found == {bool}:
        return bool
    if found == {int}:
        return int
    return float if found and found <= {int, float} else str


def _typed(value: Any, kind: type) -> Any:
    if value is None or kind is not str:
        return value if value is None else kind(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_WRITERS: dict[str, Any] = {
    ".csv": _write_csv,
    ".tsv": lambda spool, out: _write_csv(spool, out, "\t"),
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
