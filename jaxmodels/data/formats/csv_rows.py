"""The rows of a CSV or TSV file as lists of fields, with the number of the line for errors."""

from __future__ import annotations

import contextlib
import csv
import io
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from jaxmodels.data.formats.columns import chosen
from jaxmodels.data.unpack import Unreadable, checked, open_text

FEW = 256  # rows of text that are turned into columns at once: more would start Python's garbage collector


@contextlib.contextmanager
def open_csv(path: Path, limit: int) -> Iterator[TextIO]:
    """The text of a file, unpacked; raises ValueError at a NUL byte, which no text has."""

    def check(part: bytes) -> None:
        if b"\0" in part:
            raise ValueError("a NUL byte, as UTF-16 and binary files have them")

    content = checked(open_text(path, limit), check, 1 << 16)
    with io.TextIOWrapper(content, encoding="utf-8-sig", newline="") as file:
        yield file


class Rows:
    """The rows of a file as lists of fields; `line` is the number of the line read last."""

    def __init__(self, file: Iterable[str], delimiter: str):
        self._fields = 0  # of the first line
        self._line = 0
        self._csv = csv.reader(file, delimiter=delimiter, strict=True) if delimiter != "\t" else None
        self._rows: Iterator[list[str]] = self._between_tabs(file) if self._csv is None else self._csv

    @property
    def line(self) -> int:
        """The number of the line read last, from 1."""
        return self._line if self._csv is None else self._csv.line_num

    def __iter__(self) -> Iterator[list[str]]:
        return self._rows

    def _between_tabs(self, file: Iterable[str]) -> Iterator[list[str]]:
        for line in file:
            self._line += 1
            text = line.rstrip("\r\n")
            row = text.split("\t") if text else []
            if '"' in text:
                row = self._unquoted(text) or row
            self._fields = self._fields or len(row)
            yield row

    def _unquoted(self, text: str) -> list[str] | None:
        """The fields of a line quoted like CSV; None for an open quote or another number of fields."""
        try:
            (row,) = csv.reader([text], delimiter="\t", strict=True)
        except (csv.Error, ValueError):
            return None
        return row if len(row) == (self._fields or len(row)) else None


def read_columns(
    path: Path, reader: Rows, columns: Sequence[str] | None, delimiter: str
) -> tuple[list[str], list[list[str]]]:
    """The names of the chosen columns, and the texts of each."""
    rows = iter(reader)
    header = next(rows, [])
    if not header or len(set(header)) != len(header):
        hint = _other_delimiter("".join(header), delimiter)
        raise Unreadable(
            f"{path}: got a first line of {reprlib.repr(header)}; expected the name of each column, once. "
            f"{hint or 'Correct that line'}"
        )
    names = chosen(path, header, columns)
    texts: list[list[str]] = [[] for _ in names]
    indices = [header.index(name) for name in names]
    block: list[list[str]] = []
    for row in rows:
        if len(row) != len(header):
            if not row:
                continue
            hint = _other_delimiter(header[0], delimiter)
            raise Unreadable(
                f"{path}, line {reader.line}: got {len(row)} values; expected {len(header)} as in the first "
                f"line. {hint or 'Correct that line'}"
            )
        block.append(row)
        if len(block) == FEW:
            _append(texts, indices, block)
            block = []
    if not texts[0] and len(header) == 1 and block:
        hint = _other_delimiter(header[0], delimiter, block[0][0])
        if hint:
            raise Unreadable(
                f"{path}: got one column, {reprlib.repr(header[0])}; expected the name of each. {hint}"
            )
    _append(texts, indices, block)
    return names, texts


def _append(texts: list[list[str]], indices: list[int], block: list[list[str]]) -> None:
    """Adds a block of rows to the columns at these indices."""
    columns = list(zip(*block, strict=True))
    for text, index in zip(texts, indices, strict=True):
        text += columns[index] if block else ()


def _other_delimiter(first: str, used: str, second: str | None = None) -> str:
    """Advice where the first line, and the second if given, hold a delimiter other than the one used."""
    for mark in ";\t|":
        if mark != used and mark in first and (second is None or mark in second):
            return f"Give delimiter={mark!r} if the file is written so"
    return ""
