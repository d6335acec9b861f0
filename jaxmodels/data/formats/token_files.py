"""Tokens on disk, read through a memory map: as many as the disk holds, for WindowPipeline(open=lambda: open_tokens(path)).

corpus.npy holds the tokens in a row, corpus.documents.npy where each document begins and, last, the number of
    all tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxmodels.data.arrays import open_npy
from jaxmodels.data.unpack import Unreadable
from jaxmodels.runs.files import replacing


def write_tokens(path: str | os.PathLike[str], documents: Iterable[Any], dtype: Any = np.uint16) -> int:
    """Writes the documents, each a row of integers, one after another; gives the number of tokens.

    The documents are not held in memory together. The files appear under their names when all is written.
    """
    path, dtype = _npy(path), np.dtype(dtype)
    if dtype.kind not in "iu":
        raise ValueError(
            f"dtype is {dtype}; tokens are integers: take np.uint16, or np.uint32 from 65,536 tokens on"
        )
    with replacing(path) as file:
        places = _write(file, documents, dtype)
        with replacing(_sidecar(path)) as beside:
            np.save(beside, np.array(places, np.int64))
    return places[-1]


def _write(file: BinaryIO, documents: Iterable[Any], dtype: np.dtype) -> list[int]:
    """Writes a .npy file; gives where each document begins and, last, the number of all tokens."""
    limits = np.iinfo(dtype)
    places = [0]
    start = _header(file, dtype, 0)
    for number, document in enumerate(documents):
        tokens = np.asarray(document)
        if tokens.ndim != 1 or (tokens.size and tokens.dtype.kind not in "iu"):
            raise ValueError(
                f"document {number} is {tokens.dtype} of shape {tokens.shape}; wanted a row of integers; encode it first"
            )
        if tokens.size and not limits.min <= tokens.min() <= tokens.max() <= limits.max:
            raise ValueError(
                f"document {number} has tokens from {tokens.min()} to {tokens.max()}, {dtype} holds {limits.min} to "
                f"{limits.max}; choose a wider dtype"
            )
        file.write(tokens.astype(dtype).data)
        places.append(places[-1] + tokens.size)
    file.seek(0)
    assert _header(file, dtype, places[-1]) == start
    return places


def open_tokens(path: str | os.PathLike[str]) -> np.ndarray:
    """All tokens, as a read-only memory map."""
    path = _npy(path)
    tokens = _open(path)
    documents = open_documents(path)
    if documents[-1] != len(tokens):
        raise Unreadable(
            f"{path} has {len(tokens):,} tokens: got {_sidecar(path)}, which tells of {documents[-1]:,}; expected as many. "
            "Write both again"
        )
    return tokens


def open_documents(path: str | os.PathLike[str]) -> np.ndarray:
    """Where each document begins and, last, the number of all tokens: document i is tokens[d[i]:d[i + 1]]; int64."""
    path = _sidecar(_npy(path))
    places = np.array(_open(path), np.int64)
    if not len(places) or places[0] != 0 or (np.diff(places) < 0).any():
        raise Unreadable(
            f"{path}: got numbers that do not rise from 0; expected the places of documents. Write the tokens again"
        )
    return places


def _npy(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix != ".npy":
        raise Unreadable(
            f"{path}: got a name that ends in {path.suffix or 'nothing'}; expected .npy. Rename the file"
        )
    return path


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".documents.npy")


def _open(path: Path) -> np.ndarray:
    x = open_npy(path)
    if x.ndim != 1 or x.dtype.kind not in "iu":
        raise Unreadable(
            f"{path}: got {x.dtype} of shape {x.shape}; expected a row of integers. Write it with write_tokens"
        )
    return x


def _header(file: BinaryIO, dtype: np.dtype, count: int) -> int:
    """Writes a .npy header, which leaves room for any count; gives its length."""
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, description)
    return file.tell()
