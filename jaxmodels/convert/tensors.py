"""safetensors files, one or several of a folder, read through a memory map and checked before a byte of them is used.

The format: eight bytes with the length of a JSON header, the header (name -> type, shape, place), the
numbers. A file may come from anybody: whatever its header says is compared with the file itself, and no name
of a shard leads out of its folder.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import ml_dtypes
import numpy as np

from jaxmodels.data.formats.json_file import parse_object, read_object
from jaxmodels.runs.files import replacing

HEADER = 16 << 20  # bytes of a header, or of an index, at most: 100,000 tensors
TENSORS = 200_000
PIECE = 1 << 22  # numbers of a tensor that are looked through at once
TYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
T = TypeVar("T")
NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class Tensor(NamedTuple):
    """Where a tensor is."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file

    def read(self) -> np.ndarray:
        """The numbers, memory-mapped and read-only."""
        if not math.prod(self.shape):
            return np.zeros(self.shape, self.dtype)
        return np.memmap(self.path, self.dtype, mode="r", offset=self.offset, shape=self.shape)


def finite(x: np.ndarray, path: Path, name: str) -> np.ndarray:
    """The numbers as they are; a ValueError where one of them is NaN or infinite, a few rows at a time."""
    if x.dtype.kind in "biu":
        return x
    rows = max(1, PIECE // max(1, math.prod(x.shape[1:])))
    pieces = (x[i : i + rows] for i in range(0, len(x), rows)) if x.ndim else iter([x])
    odd = sum(piece.size - np.count_nonzero(np.isfinite(piece)) for piece in pieces)
    if odd:
        raise ValueError(
            f"{path}: got {odd:,} NaN or infinite of the {x.size:,} numbers of {name!r}; expected finite ones alone. "
            "Get the file again, or the weights of before the training diverged"
        )
    return x


def open_file(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of one file by name."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; wanted a safetensors file; check the path")
    size = path.stat().st_size

    def broken(what: str) -> ValueError:
        return ValueError(f"{path} is no sound safetensors file: {what}; get the file again")

    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise broken(f"it has {size} bytes, too few for a header")
        (length,) = struct.unpack("<Q", start)
        if length > min(HEADER, size - 8):
            raise broken(f"its header should have {length:,} bytes, the file has {size:,}")
        header = parse_object(file.read(length), path)
    meta = header.pop("__metadata__", {})
    if not isinstance(meta, dict):
        raise broken("its metadata is no object")
    if len(header) > TENSORS:
        raise broken(f"it names {len(header):,} tensors, more than {TENSORS:,}")
    tensors, ends = {}, []
    for name, entry in header.items():
        tensor, end = _tensor(path, name, entry, 8 + length, broken)
        tensors[name] = tensor
        ends.append((tensor.offset, end))
    place = 8 + length
    for begin, end in sorted(ends):
        if begin != place:
            raise broken("its tensors overlap, or leave a hole")
        place = end
    if place != size:
        raise broken(f"its tensors end at byte {place:,}, the file has {size:,}")
    return tensors


def _tensor(
    path: Path, name: str, entry: Any, data: int, broken: Callable[[str], ValueError]
) -> tuple[Tensor, int]:
    """A tensor and where it ends."""

    def numbers(value: Any) -> bool:
        return isinstance(value, list) and all(type(x) is int and 0 <= x < 2**62 for x in value)

    if "\0" in name or name.startswith("/") or ".." in name.split("/"):
        raise broken(f"it names a tensor {name!r}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise broken(f"the entry of {name!r} has not dtype, shape and data_offsets")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in TYPES:
        raise broken(f"{name!r} is {entry['dtype']!r}; known are {', '.join(TYPES)}")
    shape, places = entry["shape"], entry["data_offsets"]
    if not numbers(shape) or len(shape) > 32 or not numbers(places) or len(places) != 2:
        raise broken(f"{name!r} has shape {shape!r} and place {places!r}")
    dtype = np.dtype(TYPES[entry["dtype"]])
    if places[1] - places[0] != math.prod(shape) * dtype.itemsize:
        raise broken(
            f"{name!r} of shape {shape} in {entry['dtype']} does not fill bytes {places[0]:,} to {places[1]:,}"
        )
    return Tensor(path, dtype, tuple(shape), data + places[0]), data + places[1]


def open_folder(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a folder with model.safetensors, or with shards and their index."""
    folder = Path(folder)
    if (folder / SINGLE).is_file():
        return open_file(folder / SINGLE)
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(
            f"there is neither {SINGLE} nor {INDEX} in {folder}; wanted weights as safetensors (files of torch that have to "
            "be unpickled are not read); convert them, or check the folder"
        )
    return open_shards(folder, INDEX, open_file)


def open_shards(folder: Path, name: str, open_one: Callable[[Path], dict[str, T]]) -> dict[str, T]:
    """The tensors of the files that an index names, each in the file where the index places it."""
    index = read_object(folder / name, limit=HEADER).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(shard, str) for shard in index.values()):
        raise ValueError(f"{folder / name} has no weight_map from tensors to files; get the file again")
    shards = {}
    for shard in sorted(set(index.values())):
        if (
            len(shard) > 200
            or shard != Path(shard).name
            or shard in ("", ".", "..")
            or "\\" in shard
            or "\0" in shard
        ):
            raise ValueError(
                f"{folder / name} names the shard {shard[:200]!r}; wanted the name of a file beside it; do not trust it"
            )
        if not (folder / shard).is_file():
            raise FileNotFoundError(f"the shard {folder / shard} is missing; {name} names it; get the file")
        shards[shard] = open_one(folder / shard)
    tensors: dict[str, T] = {}
    for tensor, shard in index.items():
        if tensor not in shards[shard]:
            raise ValueError(
                f"{folder / shard} lacks the tensor {tensor!r}, which {name} places there; get both files again"
            )
        tensors[tensor] = shards[shard][tensor]
    unlisted = [tensor for found in shards.values() for tensor in found if tensor not in index]
    if unlisted:
        raise ValueError(
            f"{name} does not name {unlisted[0]!r}, which a shard holds; get the files of one release"
        )
    return tensors


def write_file(
    path: str | os.PathLike[str], tensors: Mapping[str, tuple[tuple[int, ...], Any, Callable[[], Any]]]
) -> None:
    """Writes tensors, each as (shape, type, function that gives it); the file appears when it is whole."""
    path = Path(path)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, (shape, dtype, _) in tensors.items():
        end = place + math.prod(shape) * np.dtype(dtype).itemsize
        header[name] = {"dtype": NAMES[np.dtype(dtype)], "shape": list(shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path, durable=True) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape, dtype, give in tensors.values():
            x = np.asarray(np.asarray(give()).astype(dtype, copy=False), order="C")  # a scalar stays one
            assert x.shape == tuple(shape)
            file.write(x.reshape(-1).view(np.uint8).data)


def shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names in groups whose sizes together stay within the limit where they can."""
    groups: list[list[str]] = [[]]
    room = limit
    for name, size in sizes.items():
        if size > room and groups[-1]:
            groups.append([])
            room = limit
        groups[-1].append(name)
        room -= size
    return groups


def names(groups: Iterable[list[str]]) -> list[str]:
    """The files' names of so many shards, as transformers expects them."""
    count = len(list(groups))
    return [SINGLE] if count == 1 else [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
