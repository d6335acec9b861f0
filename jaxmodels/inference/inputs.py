"""The inputs that a person gives to `jaxmodels predict`: files, folders, texts, rows of tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxmodels.data.folders import existing_file, files_below
from jaxmodels.data.formats import audio, images, table_rows
from jaxmodels.data.unpack import Unreadable
from jaxmodels.interfaces import Predictor

TEXT = 16 << 20  # bytes of a text
FILES = {  # of each kind of input, the endings of names that are looked for in a folder
    "image": images.ENDINGS,
    "sound": audio.ENDINGS,
    "text": (".txt", *table_rows.ENDINGS),
    "row": table_rows.ENDINGS,
}
NAMED = ("text", "sentence")  # columns that hold a table's texts


class Given(NamedTuple):
    """One input, with where it comes from."""

    input: Any
    """For Model.stream; a ValueError where it cannot be read."""
    name: str
    """For a message: reviews.csv, row 3."""
    place: dict[str, Any]
    """The same for a program: {"file": "reviews.csv", "row": 3}."""
    row: dict[str, Any]
    """What a table of answers has beside them: the columns of the input's row, or `place`."""


def files_of(predictor: Predictor, paths: Iterable[str | Path]) -> list[Path]:
    """The files at these paths; of a folder those below it whose names end as the predictor's inputs do."""
    files: list[Path] = []
    for path in map(Path, paths):
        endings = FILES[predictor.input]
        if not path.is_dir():
            files.append(path)
            continue
        found = files_below(path, endings=endings)
        if not found:
            raise ValueError(
                f"{path}: got a folder without a file that ends in {' '.join(endings)}; expected some. Give "
                "another folder, or files one by one"
            )
        files += found
    return files


def inputs_of(
    predictor: Predictor,
    files: Sequence[Path] = (),
    *,
    texts: Sequence[str] = (),
    rows: Sequence[Mapping[str, Any]] = (),
    by_line: bool = False,
    column: str = "",
) -> Iterator[Given]:
    """Every input, read as it is asked for.

    by_line: whether each line of a text file is a text. column: of the texts in a table; by default the one
        called text or sentence, or the only one.
    """
    kind = predictor.input
    if (texts or by_line or column) and kind != "text":
        raise ValueError(f"got texts; expected {_wanted(predictor)}. Give those")
    if rows and kind != "row":
        raise ValueError(f"got a row; expected {_wanted(predictor)}. Give those")
    if not files and not texts and not rows:
        raise ValueError(f"got no inputs; expected {_wanted(predictor)}. Name some after the run")
    return _inputs(kind, files, texts, rows, by_line, column)


def _wanted(predictor: Predictor) -> str:
    fields = ", ".join(predictor.fields[:20]) + " …" * (len(predictor.fields) > 20)
    if predictor.fields == ("question", "context"):
        return "--question and --context, or tables with these columns"
    return {
        "image": "image files, or folders of them",
        "sound": "sound files, or folders of them",
        "text": "--text, or text files or tables of texts",
        "row": f"tables ({' '.join(table_rows.ENDINGS)}) with the columns {fields}",
    }[predictor.input]


def _inputs(
    kind: str,
    files: Sequence[Path],
    texts: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    by_line: bool,
    column: str,
) -> Iterator[Given]:
    for n, text in enumerate(texts, 1):
        yield Given(text, f"text {n}", {"text": text}, {"text": text})
    for n, row in enumerate(rows, 1):
        yield Given(row, f"row {n}", {"row": n}, {**row})
    for file in files:
        place = {"file": str(file)}
        if kind in ("image", "sound"):
            yield Given(_existing(file), str(file), place, place)
        elif kind == "row" or table_rows.is_table(file):
            yield from _rows(file, kind, column)
        elif by_line:
            yield from _lines(file)
        else:
            yield Given(_text(file), str(file), place, place)


def _existing(file: Path) -> Path | ValueError:
    try:
        return existing_file(file)
    except OSError as error:
        return ValueError(str(error))


def _rows(file: Path, kind: str, column: str) -> Iterator[Given]:
    number = 0
    try:
        for row in table_rows.table_rows(file):
            number += 1
            found: Any = row.values
            if row.error:
                found = ValueError(row.error)
            elif kind == "text":
                found = _of_column(row.values, column)
            place = {"file": str(file), "row": number}
            yield Given(found, f"{file}, row {number}", place, row.values)
    except (ValueError, OSError) as error:
        place = {"file": str(file), "row": number + 1}
        yield Given(ValueError(str(error)), f"{file}, row {number + 1}", place, {})
        return
    if not number:
        empty = Unreadable("got a table without rows; expected at least one. Add rows")
        yield Given(empty, str(file), {"file": str(file)}, {})


def _of_column(row: Mapping[str, Any], column: str) -> Any:
    """The text of a row."""
    known = ", ".join([*row][:20])
    if column:
        names = [name for name in row if name == column]
    else:
        names = [name for name in NAMED if name in row][:1] or [*row]
    if len(names) != 1:
        wanted = f"the column {column}" if column else "a column called text, or only one"
        return ValueError(f"got the columns {known}; expected {wanted}. Name the texts' with --column")
    text = row[names[0]]
    if text is None:
        return ValueError(f"got no {names[0]}; expected a text. Fill it in")
    return text


def _text(file: Path) -> str | ValueError:
    try:
        with existing_file(file, "a text").open("rb") as opened:
            return _decoded(opened.read(TEXT + 1))
    except (OSError, ValueError) as error:
        return ValueError(str(error))


def _lines(file: Path) -> Iterator[Given]:
    number = 0
    try:
        with existing_file(file, "texts").open("rb") as opened:
            while line := opened.readline(TEXT + 1):
                number += 1
                place = {"file": str(file), "line": number}
                try:
                    text: Any = _decoded(line)
                except ValueError as error:
                    text = error
                row = place if isinstance(text, ValueError) else {**place, "text": text}
                yield Given(text, f"{file}, line {number}", place, row)
                if len(line) > TEXT:
                    return
    except OSError as error:
        yield Given(ValueError(str(error)), str(file), {"file": str(file)}, {"file": str(file)})


def _decoded(content: bytes) -> str:
    """A text, without the end of its last line."""
    if len(content) > TEXT:
        raise ValueError(f"got a text of more than {TEXT:,} bytes; expected a shorter one. Split it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"got bytes that are no UTF-8 ({error}); expected text. Save it as UTF-8") from error
    return text.rstrip("\r\n")
