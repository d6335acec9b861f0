"""Files of plain arrays: IDX (the format of MNIST), .npy and .npz. Nothing is ever unpickled.

A header is compared with the file's size before memory is allocated, and a file that holds more or less than
its header announces is refused: one wrong bit in a shape would otherwise give other rows.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from jaxmodels.data.folders import existing_file
from jaxmodels.data.unpack import FREE, PART, Allowance, open_file, reading

PathLike = str | os.PathLike[str]

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
DEFLATE = 1032  # no deflate stream unpacks to more than this times its own size (zlib's technical notes)
HEADER = 1 << 16  # the most bytes of a .npy header; NumPy's own readers take 10,000
KINDS = "biufcSUVMm"  # NumPy's letters for types that are plain bytes
_SPACES = re.compile(r"\s+", re.ASCII)
_HEADER = re.compile(
    r"""\s*\{\s*(?:['"](?:
        descr['"]\s*:\s*['"](?P<descr>[<>|=]?[a-zA-Z?]\d{0,9}(?:\[\d{0,9}[a-zA-Z]{1,7}\])?)['"]
        | fortran_order['"]\s*:\s*(?P<fortran>True|False)
        | shape['"]\s*:\s*\((?P<shape>(?:\s*\d{1,19}L?\s*,)*(?:\s*\d{1,19}L?)?)\s*\)
    )\s*,?\s*){3}\}\s*""",
    re.VERBOSE | re.ASCII,
)


def read_idx(path: PathLike, *, limit: int = FREE) -> np.ndarray:
    """The array of an IDX file (LeCun et al., 1998), plain or gzipped. limit: see data/unpack.py."""
    path = existing_file(path)
    with (
        reading(f"{path} is damaged", "a whole IDX file", "Get the file again"),
        open_file(path, limit) as file,
    ):
        return _idx(path, file, limit)


def _idx(path: Path, file: BinaryIO, limit: int) -> np.ndarray:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES or not 1 <= head[3] <= 8:
        raise ValueError(
            f"a file that begins with {head.hex(' ') or 'nothing'}, where IDX begins with 00 00, a type and "
            "a rank"
        )
    dims = file.read(4 * head[3])
    shape = tuple(int.from_bytes(dims[i : i + 4], "big") for i in range(0, len(dims), 4))
    dtype = np.dtype(IDX_TYPES[head[2]])
    size = _size(shape, dtype)
    packed = path.stat().st_size * (DEFLATE if path.suffix == ".gz" else 1)
    if len(dims) < 4 * head[3] or size > packed:
        raise ValueError(f"a file too short for the {shape} of {dtype.name} in its header")
    if path.suffix == ".gz":
        Allowance(path, limit).take(size)
    data = file.read(size + 1)
    if len(data) != size:
        more = " or more" if len(data) > size else ""
        raise ValueError(
            f"a header of {shape} of {dtype.name}, {size:,} bytes, in a file that holds {len(data):,}{more}"
        )
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


class Layout(NamedTuple):
    """The type, shape and order in a .npy header, and the byte at which the data starts."""

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return _size(self.shape, self.dtype)

    def array(self, data: np.ndarray) -> np.ndarray:
        """These bytes as the header says, in the machine's own order."""
        x = data.view(self.dtype)
        return _native(x.reshape(self.shape[::-1]).T if self.fortran else x.reshape(self.shape))


def _native(x: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "U" and x.size:
        letters = np.ascontiguousarray(x).reshape(-1).view(f"{x.dtype.str[0]}u4")
        if letters.max() > 0x10FFFF:
            raise ValueError("strings with letters that Unicode does not have")
    return x.astype(x.dtype.newbyteorder("="), copy=isinstance(x, np.memmap))


def read_layout(file: BinaryIO) -> Layout:
    """The header of a .npy stream (numpy.lib.format, versions 1 to 3); nothing in it is evaluated."""
    magic = file.read(8)
    if len(magic) < 8 or magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3):
        raise ValueError(
            f"a file that begins with {magic.hex(' ') or 'nothing'}, where .npy begins with 93 NUMPY and a "
            "version"
        )
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    text = file.read(length) if length <= HEADER else b""
    # A run of spaces becomes one, so that the expression can match it in one way only.
    words = _SPACES.sub(" ", text.decode("utf-8" if magic[6] == 3 else "latin-1", "replace"))
    fields = _HEADER.fullmatch(words)
    if fields is None or None in fields.groups():
        raise ValueError(f"a header that is not one of a plain array, {text[:80]!r}")
    dtype = np.dtype(fields["descr"])
    shape = tuple(int(word.strip().rstrip("L")) for word in fields["shape"].split(",") if word.strip())
    if dtype.kind not in KINDS or not dtype.itemsize or len(shape) > 32 or _size(shape, dtype) >= 1 << 62:
        raise ValueError(f"an array of {dtype.str!r} and shape {str(shape)[:80]}, which is not a plain one")
    return Layout(dtype, shape, fields["fortran"] == "True", 8 + width + length)


def _size(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes, in Python's integers, which cannot overflow; an absurd side counts even in an empty array."""
    most = math.prod(max(1, n) for n in shape) * dtype.itemsize
    return most if 0 not in shape or most >= 1 << 62 else 0


def open_npy(path: PathLike) -> np.ndarray:
    """A read-only memory map of a .npy file, in the file's own byte order."""
    path = existing_file(path)
    with _reading(path, "npy", "save"), path.open("rb") as file:
        layout = read_layout(file)
        held = path.stat().st_size - layout.start
        if held != layout.size:
            raise ValueError(
                f"a header of {layout.shape} of {layout.dtype}, {layout.size:,} bytes, before {held:,}"
            )
        if not layout.size:
            return np.empty(layout.shape, layout.dtype)
        order: Literal["C", "F"] = "F" if layout.fortran else "C"
        return np.memmap(path, layout.dtype, "r", layout.start, layout.shape, order)


def read_npy(path: PathLike) -> np.ndarray:
    """The array of a .npy file."""
    x = open_npy(path)
    with _reading(Path(path), "npy", "save"):
        return _native(x)


def read_npz(path: PathLike, *, limit: int = FREE) -> dict[str, np.ndarray]:
    """The arrays of a .npz file. limit: see data/unpack.py."""
    path = existing_file(path)
    with _reading(path, "npz", "savez"), zipfile.ZipFile(path) as archive:
        allowance, arrays = Allowance(path, limit), {}
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name in arrays:
                raise ValueError(f"the name {name!r} twice")
            arrays[name] = _member(archive, info, allowance)
        return arrays


def _reading(path: Path, ending: str, writer: str) -> AbstractContextManager[None]:
    what, expected = f"{path} is no .{ending} file of plain arrays", f"one as np.{writer} writes it"
    return reading(what, expected, f"Write it again with np.{writer}")


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, allowance: Allowance) -> np.ndarray:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename} packed by method {info.compress_type} instead of deflate")
    if info.file_size > DEFLATE * info.compress_size:
        raise ValueError(
            f"{info.filename}, which announces {info.file_size:,} bytes, packed to {info.compress_size:,}"
        )
    with archive.open(info) as file:
        layout = read_layout(file)  # type: ignore[arg-type]
        if layout.start + layout.size != info.file_size:
            raise ValueError(
                f"{info.filename} with a header of {layout.shape} of {layout.dtype}, of {info.file_size:,} "
                "bytes"
            )
        allowance.take(layout.size)
        data = np.empty(layout.size, np.uint8)
        for start in range(0, layout.size, PART):
            part = file.read(min(PART, layout.size - start))
            if len(part) != min(PART, layout.size - start):
                raise ValueError(f"{info.filename}, which ends early")
            data[start : start + len(part)] = np.frombuffer(part, np.uint8)
        file.read(1)  # at the end zipfile compares the checksum
    return layout.array(data)
