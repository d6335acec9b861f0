"""Files of many kinds as arrays: read whole, checked before memory is taken, and never unpickled.

What a table's reader gives goes straight into ArrayPipeline. A name that ends in .gz is unpacked on the way.

Columns of text files: whole numbers become int32 (int64 where that is too small), other numbers float32 (float64 where that
would lose what the values differ by, see jaxmodels.narrowing), and everything else strings (numpy's StringDType). A missing
value (nothing, na, n/a, nan, null or none) is nan among numbers; a column of nothing else is of strings. So is one of whole
numbers that no type holds exactly, such as 2**60 + 1 beside a missing value: those are ids.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxmodels.narrowing import EXACT, loss

PathLike = str | os.PathLike[str]
Table = dict[str, np.ndarray]

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
DEFLATE = 1032  # no deflate stream unpacks to more than this times its own size (zlib's technical notes)
MISSING = {"", "na", "n/a", "nan", "null", "none"}


def read_idx(path: PathLike) -> np.ndarray:
    """The array of an IDX file, the format of MNIST (LeCun et al., 1998), plain or gzipped."""
    path = _existing(path)
    try:
        return _read_idx(path)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}); wanted a whole IDX file; get it again") from error


def _read_idx(path: Path) -> np.ndarray:
    with _open(path) as file:
        head = file.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES or not 1 <= head[3] <= 8:
            raise ValueError(
                f"{path} begins with {head.hex(' ') or 'nothing'}; an IDX file begins with 00 00, a type and a number of "
                "dimensions; get the file again"
            )
        dims = file.read(4 * head[3])
        shape = tuple(int.from_bytes(dims[i : i + 4], "big") for i in range(0, len(dims), 4))
        dtype = np.dtype(IDX_TYPES[head[2]])
        size = math.prod(shape) * dtype.itemsize
        packed = path.stat().st_size * (DEFLATE if path.suffix == ".gz" else 1)
        if len(dims) < 4 * head[3] or size > packed:
            raise ValueError(f"{path} is too short for the {shape} of {dtype.name} that it announces; get the file again")
        data = file.read(size + 1)
    if len(data) != size:
        raise ValueError(
            f"{path} announces {shape} of {dtype.name}, {size:,} bytes, and holds {len(data):,}"
            f"{' or more' if len(data) > size else ''}; get the file again"
        )
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def read_npy(path: PathLike) -> np.ndarray:
    """The array of a .npy file."""
    path = _existing(path)
    try:
        return np.array(np.lib.format.open_memmap(path, mode="r"))  # never unpickles, and holds the shape against the file
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no .npy file of plain arrays ({error}); write it with np.save") from error


def read_npz(path: PathLike) -> Table:
    """The arrays of a .npz file."""
    path = _existing(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename.removesuffix(".npy"): _member(archive, info) for info in archive.infolist()}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} is no .npz file of plain arrays ({error}); write it with np.savez") from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename} is packed by method {info.compress_type}, wanted deflate")
    if info.file_size > DEFLATE * info.compress_size:
        raise ValueError(f"{info.filename} announces {info.file_size:,} bytes, packed in {info.compress_size:,}")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if math.prod(shape) * dtype.itemsize > info.file_size:
            raise ValueError(f"{info.filename} announces {shape} of {dtype}, and has {info.file_size:,} bytes")
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def read_csv(path: PathLike, columns: Sequence[str] | None = None, *, delimiter: str = ",") -> Table:
    """The columns of a CSV file whose first line names them; only those asked for, where any are."""
    path = _existing(path)
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            names = next(reader, [])
            if not names or len(set(names)) != len(names):
                raise ValueError(f"{path}: the first line is {names}; it must name each column, once")
            wanted = _chosen(path, names, columns)
            texts: list[list[str]] = [[] for _ in wanted]
            places = [names.index(name) for name in wanted]
            for row in reader:
                if len(row) != len(names) and row:
                    raise ValueError(
                        f"{path}, line {reader.line_num}: {len(row)} values, wanted {len(names)} as in the first line; "
                        "mend that line"
                    )
                for text, place in zip(texts, places, strict=True):
                    if row:
                        text.append(row[place])
        except (csv.Error, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path}, near line {reader.line_num}: {error}; wanted CSV text in UTF-8") from error
    if not texts[0]:
        raise ValueError(f"{path} has no lines below the first; a table needs at least one")
    return {name: _from_texts(text) for name, text in zip(wanted, texts, strict=True)}


def read_jsonl(path: PathLike, columns: Sequence[str] | None = None) -> Table:
    """The keys of a file with one JSON object a line, all with the same keys; only those asked for, where any are.

    Lists become further dimensions, and must then be equally long.
    """
    path = _existing(path)
    names: list[str] = []
    values: dict[str, list[Any]] = {}
    line = 0
    with _open(path) as file:
        try:
            for text in file:
                line += 1
                if not text.strip():
                    continue
                row = json.loads(text)
                if not isinstance(row, dict):
                    raise ValueError(f"came {type(row).__name__}, wanted an object")
                if not values:
                    names = list(row)
                    values = {name: [] for name in _chosen(path, names, columns)}
                if row.keys() != set(names):
                    raise ValueError(f"the keys are {sorted(row)}, wanted {sorted(names)} as in the first line")
                for name, column in values.items():
                    column.append(row[name])
        except (ValueError, RecursionError, EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path}, line {line or 1}: {error}; mend that line") from error
    if not values:
        raise ValueError(f"{path} is empty; wanted a JSON object on each line")
    return {name: _from_values(column, f"{path}: {name}") for name, column in values.items()}


def read_parquet(path: PathLike, columns: Sequence[str] | None = None) -> Table:
    """The columns of a Parquet file; only those asked for, where any are. Types as in the file; a missing number is nan.

    A whole number that is changed by that, as 2**60 + 1 is, is refused.
    """
    path = _existing(path)
    try:
        import pyarrow.parquet as parquet
        from pyarrow import ArrowException
    except ImportError as error:
        raise ImportError("reading Parquet needs pyarrow; pip install 'jaxmodels[data]'") from error
    try:
        with parquet.ParquetFile(path) as file:
            names = _chosen(path, file.schema_arrow.names, columns)
            table = file.read(columns=names)
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path} is no Parquet file that can be read ({error}); get or write it again") from error
    return {name: _of_parquet(table.column(name), f"{path}: {name}") for name in names}


def _of_parquet(column: Any, where: str) -> np.ndarray:
    """A column as pyarrow has read it."""
    array = column.to_numpy()
    if array.dtype == object or str(column.type) == "null":
        return _from_values(column.to_pylist(), where)
    if column.null_count and "int" in str(column.type):  # pyarrow makes them float64, with nan where they are missing
        for value in column.drop_null().to_numpy().tolist():
            if int(float(value)) != value:
                raise ValueError(
                    f"{where}: got {value} beside missing values; expected whole numbers that float64 holds exactly. Write "
                    "ids as texts, fill what is missing, or leave the column out with columns="
                )
    return array


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
    ending = ".idx" if name.endswith("-ubyte") else Path(name).suffix  # MNIST's own names: train-images-idx3-ubyte
    if ending not in readers:
        raise ValueError(
            f"{path} ends in {ending or 'nothing'}; wanted one of {' '.join(readers)}; convert it to one of them"
        )
    return readers[ending](path)


def _existing(path: PathLike) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} (working folder {Path.cwd()}); check the path")
    return path


def _open(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _chosen(path: Path, names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    missing = set(columns or ()) - set(names)
    if columns is not None and not columns:
        raise ValueError(f"{path}: columns is empty; name some of {', '.join(names)}, or leave it out for all")
    if missing:
        raise ValueError(f"{path} has no column {', '.join(sorted(missing))}; its columns: {', '.join(names)}")
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
                raise ValueError(f"got {v} beside values that are missing or no whole numbers, and float64 does not hold it")
    if whole and type(None) not in kinds:
        return np.array(values, bool if kinds == {bool} else np.int32 if largest < 1 << 31 else np.int64)
    numbers = np.array([math.nan if v is None else v for v in values], np.float64)
    return numbers if largest > EXACT or loss(numbers) else numbers.astype(np.float32)


def _from_values(values: list[Any], where: str) -> np.ndarray:
    """A column of JSON or Parquet values."""
    flat = values
    shape: tuple[int, ...] = (len(values),)
    while flat and all(isinstance(v, list | np.ndarray) for v in flat):
        lengths = {len(v) for v in flat}
        if len(lengths) != 1:
            raise ValueError(
                f"{where} holds lists of {min(lengths)} to {max(lengths)} values; an array needs them equally long; "
                "leave the column out with columns=, or pad it"
            )
        shape += (lengths.pop(),)
        flat = [x for v in flat for x in (v.tolist() if isinstance(v, np.ndarray) else v)]
    if any(v is not None for v in flat) and all(isinstance(v, int | float | None) for v in flat):
        try:
            return _numbers(flat).reshape(shape)
        except ValueError as error:
            raise ValueError(
                f"{where}: {error}; expected numbers that a type of 64 bits holds. Write ids as texts, fill what is "
                "missing, or leave the column out with columns="
            ) from error
    if all(isinstance(v, str | None) for v in flat):
        return np.array(["" if v is None else v for v in flat], np.dtypes.StringDType()).reshape(shape)
    kinds = sorted({type(v).__name__ for v in flat})
    raise ValueError(f"{where} holds values of types {', '.join(kinds)}; wanted all numbers, all strings or lists of them")
