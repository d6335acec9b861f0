"""Files of CTranslate2, model.bin: every length is checked before a byte is used; tensors are memory-mapped.

    uint32 version, string specification, uint32 revision, uint32 number of variables
    each: string name, uint8 axes, uint32 per axis, uint8 type, uint32 bytes, the bytes
    uint32 number of aliases; each: string alias, string name of a variable

Numbers are little-endian; a string is a uint16 length, and that many bytes of which the last is 0. Variables
lie one after another, so none can overlap. A file may come from anybody.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from jaxmodels.convert.tensors import TENSORS, Tensor

FILE = "model.bin"
VERSIONS = (4, 5, 6)  # from 4 on a variable says its type; later ones changed nothing in this file
TYPES = (np.int8, np.int16, np.int32, np.float16, ml_dtypes.bfloat16)  # after float32
AXES, NAME = 8, 1000  # of a variable, and bytes of its name, at most


class Variables(NamedTuple):
    """A file's kind of model, such as "WhisperSpec", and its variables by name, aliases among them."""

    specification: str
    tensors: dict[str, Tensor]


def is_ctranslate2(folder: str | os.PathLike[str]) -> bool:
    """Whether this folder has a model.bin, which starts as such files do."""
    path = Path(folder) / FILE
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(6)
    return len(start) == 6 and struct.unpack("<I", start[:4])[0] < 256 and start[5] == 0


def open_ctranslate2(path: str | os.PathLike[str]) -> Variables:
    """The variables of a file; a ValueError says what of it is not sound."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: got no file; expected CTranslate2's {FILE}. Check the path.")
    with path.open("rb") as file:
        return _Reader(path, file).variables()


class _Reader:
    """What a file says, read from its start to its end."""

    def __init__(self, path: Path, file: BinaryIO):
        self._path, self._file, self._size = path, file, os.fstat(file.fileno()).st_size

    def variables(self) -> Variables:
        version = self._number(4)
        if version not in VERSIONS:
            known = ", ".join(map(str, VERSIONS))
            raise self._broken(f"the version {version}", f"one of {known}. Convert the model again")
        specification, _ = self._text(), self._number(4)
        tensors: dict[str, Tensor] = {}
        for _ in range(self._count("variables")):
            name = self._text()
            if name in tensors:
                raise self._broken(f"the variable {name!r} twice")
            tensors[name] = self._tensor(name)
        aliases: dict[str, Tensor] = {}
        for _ in range(self._count("aliases")):
            alias, name = self._text(), self._text()
            if name not in tensors or alias in tensors or alias in aliases:
                raise self._broken(f"the alias {alias!r} of {name!r}", "a new name of one of its variables")
            aliases[alias] = tensors[name]
        if rest := self._size - self._file.tell():
            raise self._broken(f"{rest:,} bytes after the end")
        return Variables(specification, {**tensors, **aliases})

    def _tensor(self, name: str) -> Tensor:
        axes = self._number(1)
        if axes > AXES:
            raise self._broken(f"{name!r} with {axes} axes", f"at most {AXES}")
        shape = tuple(self._number(4) for _ in range(axes))
        kind, size = self._number(1), self._number(4)
        if kind > len(TYPES):
            raise self._broken(f"the type {kind} of {name!r}", f"0 to {len(TYPES)}")
        dtype: Any = np.dtype(TYPES[kind - 1] if kind else np.float32)
        wanted, start = math.prod(shape) * dtype.itemsize, self._file.tell()
        if size != wanted:
            raise self._broken(f"{size:,} bytes for {name!r}", f"{wanted:,}, by its shape {list(shape)}")
        if size > self._size - start:
            raise self._broken(f"an end within {name!r}")
        self._file.seek(size, os.SEEK_CUR)
        return Tensor(self._path, dtype, shape, start)

    def _count(self, what: str) -> int:
        count = self._number(4)
        if count > TENSORS:
            raise self._broken(f"{count:,} {what}", f"at most {TENSORS:,}")
        return count

    def _number(self, size: int) -> int:
        return int.from_bytes(self._bytes(size), "little")

    def _text(self) -> str:
        length = self._number(2)
        if not 0 < length <= NAME:
            raise self._broken(f"a name of {length:,} bytes", f"1 to {NAME:,}")
        content = self._bytes(length)
        if content.find(0) != length - 1 or not content[:-1].isascii():
            raise self._broken(f"the name {content[:80]!r}", "ASCII with one 0 at its end")
        return content[:-1].decode("ascii")

    def _bytes(self, size: int) -> bytes:
        content = self._file.read(size)
        if len(content) != size:
            raise self._broken(f"an end after {self._size:,} bytes")
        return content

    def _broken(self, got: str, expected: str = "a sound file of CTranslate2") -> ValueError:
        do = "" if ". " in expected else ". Get the file again"
        return ValueError(f"{self._path}: got {got}; expected {expected}{do}.")
