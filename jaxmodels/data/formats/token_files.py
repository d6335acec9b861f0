"""Tokens on disk, read through a memory map, for WindowPipeline(open=lambda: open_tokens(path)).

corpus.npy holds all tokens in one array, corpus.documents.npy the start of each document and, last, the
number of all tokens. Only the disk limits how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxmodels.data.formats.array_files import open_npy
from jaxmodels.data.unpack import Unreadable
from jaxmodels.runs.files import replacing


def write_tokens(path: str | os.PathLike[str], documents: Iterable[Any], dtype: Any = np.uint16) -> int:
    """Writes the documents, each an array of integers, one after another; returns the number of tokens.

    Memory holds one document at a time. The files appear under their names once everything is written.
    """
    path, dtype = _npy(path), np.dtype(dtype)
    if dtype.kind not in "iu":
        raise ValueError(
            f"write_tokens: got dtype={dtype}; expected an integer type. Take np.uint16, or np.uint32 from "
            "65,536 tokens on"
        )
    with replacing(path) as file:
        offsets = _write(file, documents, dtype)
        with replacing(_offsets_path(path)) as offsets_file:
            np.save(offsets_file, np.array(offsets, np.int64))
    return offsets[-1]


def _write(file: BinaryIO, documents: Iterable[Any], dtype: np.dtype) -> list[int]:
    """Writes a .npy file; returns the start of each document and, last, the number of all tokens."""
    limits = np.iinfo(dtype)
    offsets = [0]
    start = _header(file, dtype, 0)
    for number, document in enumerate(documents):
        tokens = np.asarray(document)
        if tokens.ndim != 1 or (tokens.size and tokens.dtype.kind not in "iu"):
            raise ValueError(
                f"document {number}: got {tokens.dtype} of shape {tokens.shape}; expected integers in one "
                "dimension. Encode it first"
            )
        if tokens.size and not limits.min <= tokens.min() <= tokens.max() <= limits.max:
            raise ValueError(
                f"document {number}: got tokens from {tokens.min()} to {tokens.max()}; expected {limits.min} "
                f"to {limits.max}, the range of {dtype}. Choose a wider dtype"
            )
        file.write(tokens.astype(dtype).data)
        offsets.append(offsets[-1] + tokens.size)
    file.seek(0)
    assert _header(file, dtype, offsets[-1]) == start
    return offsets


def open_tokens(path: str | os.PathLike[str]) -> np.ndarray:
    """All tokens, as a read-only memory map."""
    path = _npy(path)
    tokens = _open(path)
    documents = open_documents(path)
    if documents[-1] != len(tokens):
        raise Unreadable(
            f"{path} has {len(tokens):,} tokens: got {documents[-1]:,} as their number in "
            f"{_offsets_path(path)}; expected the same number. Write both again"
        )
    return tokens


def open_documents(path: str | os.PathLike[str]) -> np.ndarray:
    """The start of each document and, last, the number of tokens (int64): document i is tokens[d[i]:d[i +
    1]]."""
    path = _offsets_path(_npy(path))
    offsets = np.array(_open(path), np.int64)
    if not len(offsets) or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise Unreadable(
            f"{path}: got numbers that do not rise from 0; expected the starts of documents. Write the "
            "tokens again"
        )
    return offsets


def _npy(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix != ".npy":
        raise Unreadable(
            f"{path}: got a name that ends in {path.suffix or 'nothing'}; expected .npy. Rename the file"
        )
    return path


def _offsets_path(path: Path) -> Path:
    return path.with_suffix(".documents.npy")


def _open(path: Path) -> np.ndarray:
    x = open_npy(path)
    if x.ndim != 1 or x.dtype.kind not in "iu":
        raise Unreadable(
            f"{path}: got {x.dtype} of shape {x.shape}; expected integers in one dimension. Write it with "
            "write_tokens"
        )
    return x


def _header(file: BinaryIO, dtype: np.dtype, count: int) -> int:
    """Writes a .npy header, which leaves room for any count; returns its length."""
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, description)
    return file.tell()
