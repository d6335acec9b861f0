"""Files of plain arrays: IDX (the format of MNIST), .npy and .npz. Nothing is ever unpickled.

A header is held against the file before memory is taken, and a file that holds more or less than its header
announces is refused: one wrong bit in a shape would otherwise give other rows.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from jaxmodels.data.unpack import FREE, PART, Allowance, existing, open_file, reading

PathLike = str | os.PathLike[str]

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
DEFLATE = 1032  # no deflate stream unpacks to more than this times its own size (zlib's technical notes)
HEADER = 1 << 16  # bytes of a .npy header at most; NumPy's own readers take 10,000
KINDS = "biufcSUVMm"  # numpy's letters for types that are plain bytes
_BLANKS = re.compile(r"\s+", re.ASCII)
_WORDS = re.compile(
    r"""\s*\{\s*(?:['"](?:
        descr['"]\s*:\s*['"](?P<descr>[<>|=]?[a-zA-Z?]\d{0,9}(?:\[\d{0,9}[a-zA-Z]{1,7}\])?)['"]
        | fortran_order['"]\s*:\s*(?P<fortran>True|False)
        | shape['"]\s*:\s*\((?P<shape>(?:\s*\d{1,19}L?\s*,)*(?:\s*\d{1,19}L?)?)\s*\)
    )\s*,?\s*){3}\}\s*""",
    re.VERBOSE | re.ASCII,
)


def read_idx(path: PathLike, *, limit: int = FREE) -> np.ndarray:
    """The array of an IDX file (LeCun et al., 1998), plain or gzipped. limit: see data/unpack.py."""
    path = existing(path)
    with (
        reading(f"{path} is damaged", "a whole IDX file", "Get the file again"),
        open_file(path, limit) as file,
    ):
        return _idx(path, file, limit)


def _idx(path: Path, file: BinaryIO, limit: int) -> np.ndarray:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES or not 1 <= head[3] <= 8:
        raise ValueError(
            f"what begins with {head.hex(' ') or 'nothing'}, where IDX begins with 00 00, a type and a rank"
        )
    dims = file.read(4 * head[3])
    shape = tuple(int.from_bytes(dims[i : i + 4], "big") for i in range(0, len(dims), 4))
    dtype = np.dtype(IDX_TYPES[head[2]])
    size = _size(shape, dtype)
    packed = path.stat().st_size * (DEFLATE if path.suffix == ".gz" else 1)
    if len(dims) < 4 * head[3] or size > packed:
        raise ValueError(f"a file too short for the {shape} of {dtype.name} that it announces")
    if path.suffix == ".gz":
        Allowance(path, limit).take(size)
    data = file.read(size + 1)
    if len(data) != size:
        more = " or more" if len(data) > size else ""
        raise ValueError(
            f"the announcement of {shape} of {dtype.name}, {size:,} bytes, where it holds {len(data):,}{more}"
        )
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


class Layout(NamedTuple):
    """What a .npy header says, and where it ends."""

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
    if (
        x.dtype.kind == "U"
        and x.size
        and np.ascontiguousarray(x).reshape(-1).view(f"{x.dtype.str[0]}u4").max() > 0x10FFFF
    ):
        raise ValueError("strings with letters that do not exist")
    return x.astype(x.dtype.newbyteorder("="), copy=isinstance(x, np.memmap))


def read_layout(file: BinaryIO) -> Layout:
    """The header of a .npy stream (numpy.lib.format, versions 1 to 3), by a grammar that computes nothing."""
    magic = file.read(8)
    if len(magic) < 8 or magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3):
        raise ValueError(
            f"what begins with {magic.hex(' ') or 'nothing'}, where .npy begins with 93 NUMPY and a version"
        )
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    text = file.read(length) if length <= HEADER else b""
    # a run of blanks becomes one, so that there is one way only to match it
    words = _WORDS.fullmatch(
        _BLANKS.sub(" ", text.decode("utf-8" if magic[6] == 3 else "latin-1", "replace"))
    )
    if words is None or None in words.groups():
        raise ValueError(f"a header that is none of plain arrays, {text[:80]!r}")
    dtype = np.dtype(words["descr"])
    shape = tuple(int(word.strip().rstrip("L")) for word in words["shape"].split(",") if word.strip())
    if dtype.kind not in KINDS or not dtype.itemsize or len(shape) > 32 or _size(shape, dtype) >= 1 << 62:
        raise ValueError(f"an array of {dtype.str!r} and shape {str(shape)[:80]}, which is no plain one")
    return Layout(dtype, shape, words["fortran"] == "True", 8 + width + length)


def _size(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes, in whole numbers that cannot overflow; one with no elements may still not have an absurd side."""
    most = math.prod(max(1, n) for n in shape) * dtype.itemsize
    return most if 0 not in shape or most >= 1 << 62 else 0


def open_npy(path: PathLike) -> np.ndarray:
    """A read-only memory map of a .npy file, in the file's own byte order."""
    path = existing(path)
    advice = "Write it again with np.save"
    with (
        reading(f"{path} is no .npy file of plain arrays", "one as np.save writes", advice),
        path.open("rb") as file,
    ):
        layout = read_layout(file)
        held = path.stat().st_size - layout.start
        if held != layout.size:
            raise ValueError(
                f"the announcement of {layout.shape} of {layout.dtype}, {layout.size:,} bytes, over {held:,}"
            )
        if not layout.size:
            return np.empty(layout.shape, layout.dtype)
        order: Literal["C", "F"] = "F" if layout.fortran else "C"
        return np.memmap(path, layout.dtype, "r", layout.start, layout.shape, order)


def read_npy(path: PathLike) -> np.ndarray:
    """The array of a .npy file."""
    x = open_npy(path)
    with reading(
        f"{path} is no .npy file of plain arrays", "one as np.save writes", "Write it again with np.save"
    ):
        return _native(x)


def read_npz(path: PathLike, *, limit: int = FREE) -> dict[str, np.ndarray]:
    """The arrays of a .npz file. limit: see data/unpack.py."""
    path = existing(path)
    advice = "Write it again with np.savez"
    with (
        reading(f"{path} is no .npz file of plain arrays", "one as np.savez writes", advice),
        zipfile.ZipFile(path) as archive,
    ):
        allowance, arrays = Allowance(path, limit), {}
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name in arrays:
                raise ValueError(f"the name {name!r} twice")
            arrays[name] = _member(archive, info, allowance)
        return arrays


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, allowance: Allowance) -> np.ndarray:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename} packed by method {info.compress_type} in place of deflate")
    if info.file_size > DEFLATE * info.compress_size:
        raise ValueError(
            f"{info.filename}, which announces {info.file_size:,} bytes, packed in {info.compress_size:,}"
        )
    with archive.open(info) as file:
        layout = read_layout(file)  # type: ignore[arg-type]
        if layout.start + layout.size != info.file_size:
            raise ValueError(
                f"{info.filename}, which announces {layout.shape} of {layout.dtype}, and has {info.file_size:,} bytes"
            )
        allowance.take(layout.size)
        data = np.empty(layout.size, np.uint8)
        for start in range(0, layout.size, PART):
            part = file.read(min(PART, layout.size - start))
            if len(part) != min(PART, layout.size - start):
                raise ValueError(f"{info.filename}, which ends early")
            data[start : start + len(part)] = np.frombuffer(part, np.uint8)
        file.read(1)  # at the end the checksum is compared
    return layout.array(data)
