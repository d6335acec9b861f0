"""Fingerprints of data: 32 hexadecimal digits that change when an example, or the order of examples, does.

A data set of up to WHOLE bytes is hashed completely. For a larger one the fingerprint covers shapes, types,
names, sizes and evenly spaced blocks from the first to the last, which takes a fraction of a second for any
size.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodels.data.archive import Member

WHOLE = 256 << 20  # bytes of a data set that is hashed completely
SMALL = 64 << 20  # bytes of an array that is, such as the labels of a larger data set
BLOCK, BLOCKS = 64 << 10, 1024  # size and number of the blocks of a larger array
PIECE = 8 << 20  # bytes that one thread hashes at a time
MANY = 50_000  # small files that are all read
FILES = 2048  # files whose first block is hashed where there are more
EXAMPLES = 64  # examples that are loaded from a source of another kind


def of_parts(parts: Iterable[Any]) -> str:
    """The fingerprint of JSON values, in their order."""
    return hashlib.sha256(json.dumps(list(parts), default=str).encode()).hexdigest()[:32]


def of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """The fingerprint of arrays by name. Up to WHOLE bytes in all, any changed value changes it."""
    whole = sum(x.nbytes for x in arrays.values()) <= WHOLE
    parts = []
    for name, array in sorted(arrays.items()):
        x = np.asanyarray(array)
        parts.append([name, x.dtype.name, x.shape, _array(x, whole or x.nbytes <= SMALL)])
    return of_parts(parts)


def of_files(files: Sequence[tuple[str, str | os.PathLike[str] | bytes]]) -> str:
    """The fingerprint of files, or of their bytes, each with a name that does not depend on the folder."""
    sizes = [len(x) if isinstance(x, bytes) else os.stat(x).st_size for _, x in files]
    whole = sum(sizes) <= WHOLE and len(files) <= MANY
    chosen = range(len(files)) if whole else _spaced(len(files), FILES)

    def content(i: int) -> str:
        source = files[i][1]
        if isinstance(source, bytes):
            return hashlib.sha256(source if whole else source[:BLOCK]).hexdigest()
        with open(source, "rb") as file:
            if not whole:
                return hashlib.sha256(file.read(BLOCK)).hexdigest()
            return hashlib.file_digest(file, "sha256").hexdigest()

    parts = [chosen[i :: _threads()] for i in range(_threads())]
    with ThreadPoolExecutor(len(parts)) as pool:
        digests_of_parts = list(pool.map(lambda part: [content(i) for i in part], parts))
    digests: dict[int, str] = {}
    for part, digests_of_part in zip(parts, digests_of_parts, strict=True):
        digests.update(zip(part, digests_of_part, strict=True))
    names = [[name, size] for (name, _), size in zip(files, sizes, strict=True)]
    return of_parts([names, [digests[i] for i in chosen]])


def of_source(source: Any, load: Callable[[Any], Mapping[str, Any]]) -> str:
    """The fingerprint of a source.

    A list of values, arrays, files or tuples that begin with a file is taken as it is; of any other source
    examples are loaded.
    """
    if isinstance(source, list | tuple):
        if (files := _as_files(source)) is not None:
            return of_files(files)
        if all(_is_plain(item) for item in source):
            return of_parts([_plain(item) for item in source])
    chosen = _spaced(len(source), EXAMPLES)
    examples = [{name: np.asarray(x) for name, x in load(source[i]).items()} for i in chosen]
    return of_parts([len(source), *(of_arrays(example) for example in examples)])


def _as_files(source: Sequence[Any]) -> list[tuple[str, Any]] | None:
    """The items as files with names below their common folder; None where they are no files."""
    firsts = [item[0] if isinstance(item, tuple) and item else item for item in source]
    rests = [list(item[1:]) if isinstance(item, tuple) else [] for item in source]
    if firsts and all(isinstance(file, Member) for file in firsts):
        names = [file.name for file in firsts]
        contents = [file.data for file in firsts]
    elif all(isinstance(file, str | os.PathLike) for file in firsts) and all(map(os.path.isfile, firsts)):
        contents = [os.path.abspath(file) for file in firsts]
        root = os.path.dirname(contents[0]) if len(contents) == 1 else os.path.commonpath(contents)
        names = [Path(os.path.relpath(path, root)).as_posix() for path in contents]
    else:
        return None
    keys = [json.dumps([name, *rest], default=str) for name, rest in zip(names, rests, strict=True)]
    return list(zip(keys, contents, strict=True))


def _is_plain(item: Any) -> bool:
    if isinstance(item, tuple | list):
        return all(map(_is_plain, item))
    if isinstance(item, dict):
        return all(map(_is_plain, item.values()))
    return item is None or isinstance(item, str | bytes | int | float | np.ndarray | np.generic)


def _plain(item: Any) -> Any:
    if isinstance(item, tuple | list):
        return [_plain(x) for x in item]
    if isinstance(item, dict):
        return {str(name): _plain(x) for name, x in item.items()}
    if isinstance(item, np.ndarray | np.generic):
        return of_arrays({"": np.asarray(item)})
    return hashlib.sha256(item).hexdigest() if isinstance(item, bytes) else item


def _array(x: np.ndarray, whole: bool) -> list[str]:
    """Digests of all bytes in pieces, or of evenly spaced blocks."""
    if x.dtype.hasobject or x.dtype.kind not in "biufcSUMmV":  # strings, whose addresses the array holds
        flat = x.reshape(-1)
        values = flat.tolist() if whole else [flat[i] for i in _spaced(x.size, BLOCKS)]
        return [hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()]
    if not x.flags.c_contiguous:
        x = np.ascontiguousarray(x if whole else x[_spaced(len(x), BLOCKS)])
    data = x.reshape(-1).view(np.uint8) if x.size else np.zeros(0, np.uint8)
    if whole or data.nbytes <= BLOCK * BLOCKS:
        pieces = [data[i : i + PIECE] for i in range(0, data.nbytes, PIECE)]
    else:
        pieces = [data[i * BLOCK : (i + 1) * BLOCK] for i in _spaced(-(-data.nbytes // BLOCK), BLOCKS)]
    if len(pieces) < 2:
        return [piece_digest(piece) for piece in pieces]
    with ThreadPoolExecutor(_threads()) as pool:  # hashing lets other threads run
        return list(pool.map(piece_digest, pieces))


def piece_digest(piece: np.ndarray) -> str:
    """SHA-256 of the bytes of a contiguous array, in hexadecimal."""
    return hashlib.sha256(piece.data).hexdigest()


def _spaced(n: int, count: int) -> list[int]:
    """At most `count` of n indices, evenly spaced, with the first and the last."""
    return list(range(n)) if n <= count else np.linspace(0, n - 1, count).round().astype(int).tolist()


def _threads() -> int:
    return min(8, os.cpu_count() or 1)
