"""Fingerprints of data: a few letters that change when an example, or the order of the examples, does.

A data set of up to WHOLE bytes is hashed to the last bit. Of a larger one it is shapes, types, names and
sizes, and blocks evenly spaced from the first to the last, which takes a fraction of a second whatever there
is.
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

WHOLE = 256 << 20  # bytes of a data set that are all hashed
SMALL = 64 << 20  # of one array, such as the labels of a larger data set
BLOCK, BLOCKS = 64 << 10, 1024  # of a larger array
PIECE = 8 << 20  # bytes that one thread hashes at a time
MANY = 50_000  # files that are all read, where they are small
FILES = 2048  # of which the first block is hashed, where all are too much
EXAMPLES = 64  # loaded of a source that says nothing but by loading


def of_parts(parts: Iterable[Any]) -> str:
    """Of JSON values, in their order."""
    return hashlib.sha256(json.dumps(list(parts), default=str).encode()).hexdigest()[:32]


def of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Of arrays by name. Where all together have at most WHOLE bytes, any changed value changes it."""
    whole = sum(x.nbytes for x in arrays.values()) <= WHOLE
    found = ((name, np.asanyarray(x)) for name, x in sorted(arrays.items()))
    return of_parts([name, x.dtype.name, x.shape, _array(x, whole or x.nbytes <= SMALL)] for name, x in found)


def of_files(files: Sequence[tuple[str, str | os.PathLike[str] | bytes]]) -> str:
    """Of files, each with a name that does not depend on where the data lies; or of their bytes."""
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
        contents = list(pool.map(lambda part: [content(i) for i in part], parts))
    found = {
        i: x
        for part, of_part in zip(parts, contents, strict=True)
        for i, x in zip(part, of_part, strict=True)
    }
    return of_parts(
        [[[name, size] for (name, _), size in zip(files, sizes, strict=True)], [found[i] for i in chosen]]
    )


def of_source(source: Any, load: Callable[[Any], Mapping[str, Any]]) -> str:
    """Of what is loaded by index: a list of values, arrays, files or tuples that begin with a file; else of examples."""
    if isinstance(source, list | tuple):
        if (files := _as_files(source)) is not None:
            return of_files(files)
        if all(_is_plain(item) for item in source):
            return of_parts([_plain(item) for item in source])
    chosen = _spaced(len(source), EXAMPLES)
    examples = [{name: np.asarray(x) for name, x in load(source[i]).items()} for i in chosen]
    return of_parts([len(source), *(of_arrays(example) for example in examples)])


def _as_files(source: Sequence[Any]) -> list[tuple[str, Any]] | None:
    """The items as files with names below their common folder, or None where they are none."""
    firsts = [item[0] if isinstance(item, tuple) and item else item for item in source]
    if firsts and all(isinstance(x, Member) for x in firsts):
        more = [list(item[1:]) if isinstance(item, tuple) else [] for item in source]
        return [
            (json.dumps([x.name, *rest], default=str), x.data) for x, rest in zip(firsts, more, strict=True)
        ]
    if not all(isinstance(x, str | os.PathLike) for x in firsts) or not all(map(os.path.isfile, firsts)):
        return None
    paths = [os.path.abspath(x) for x in firsts]
    root = os.path.dirname(paths[0]) if len(paths) == 1 else os.path.commonpath(paths)
    rest = [list(item[1:]) if isinstance(item, tuple) else [] for item in source]
    names = [
        json.dumps([Path(os.path.relpath(p, root)).as_posix(), *more], default=str)
        for p, more in zip(paths, rest, strict=True)
    ]
    return list(zip(names, paths, strict=True))


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
    """Digests of all bytes in pieces, or of blocks."""
    if x.dtype.hasobject or x.dtype.kind not in "biufcSUMmV":  # strings, of which the array holds addresses
        text = json.dumps(
            x.reshape(-1).tolist() if whole else [x.reshape(-1)[i] for i in _spaced(x.size, BLOCKS)],
            default=str,
        )
        return [hashlib.sha256(text.encode()).hexdigest()]
    if not x.flags.c_contiguous:
        x = np.ascontiguousarray(x if whole else x[_spaced(len(x), BLOCKS)])
    flat = x.reshape(-1).view(np.uint8) if x.size else np.zeros(0, np.uint8)
    if whole or flat.nbytes <= BLOCK * BLOCKS:
        pieces = [flat[i : i + PIECE] for i in range(0, flat.nbytes, PIECE)]
    else:
        pieces = [flat[i * BLOCK : (i + 1) * BLOCK] for i in _spaced(-(-flat.nbytes // BLOCK), BLOCKS)]
    if len(pieces) < 2:
        return [_digest(piece) for piece in pieces]
    with ThreadPoolExecutor(_threads()) as pool:  # hashing lets other threads run
        return list(pool.map(_digest, pieces))


def _digest(piece: np.ndarray) -> str:
    return hashlib.sha256(piece.data).hexdigest()


def _spaced(n: int, count: int) -> list[int]:
    """count places of n, or all, evenly spaced with the first and the last."""
    return list(range(n)) if n <= count else np.linspace(0, n - 1, count).round().astype(int).tolist()


def _threads() -> int:
    return min(8, os.cpu_count() or 1)
