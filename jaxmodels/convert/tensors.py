"""safetensors files, one or several in a folder, checked before a byte is used and read through a memory map.

The safetensors library compares a file's header with the file. What it accepts and we do not stands here: a
name given twice, a name that leads out of a folder, and headers larger than any real one. It copies what it
reads and writes from memory, so we map tensors ourselves and write them one at a time. A file may come from
anybody.
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
from safetensors import SafetensorError, safe_open

from jaxmodels.data.formats.json_file import parse_object, read_object
from jaxmodels.runs.files import replacing

HEADER = 16 << 20  # bytes of a header, or of an index, at most: 100,000 tensors
TENSORS = 200_000
AXES, LENGTH = 32, 2**62  # of a tensor at most, which NumPy can hold
CHUNK = 1 << 22  # values of a tensor that are checked at once
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
    """Where a tensor lies in a file."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file

    def read(self) -> np.ndarray:
        """The values, memory-mapped and read-only."""
        if not math.prod(self.shape):
            return np.zeros(self.shape, self.dtype)
        return np.memmap(self.path, self.dtype, mode="r", offset=self.offset, shape=self.shape)


def finite(x: np.ndarray, path: Path, name: str) -> np.ndarray:
    """The array itself; a ValueError where a value is NaN or infinite. It is checked a few rows at a time."""
    if x.dtype.kind in "biu":
        return x
    rows = max(1, CHUNK // max(1, math.prod(x.shape[1:])))
    chunks = (x[i : i + rows] for i in range(0, len(x), rows)) if x.ndim else iter([x])
    not_finite = sum(chunk.size - np.count_nonzero(np.isfinite(chunk)) for chunk in chunks)
    if not_finite:
        raise ValueError(
            f"{path}: got {not_finite:,} NaN or infinite of the {x.size:,} values of {name!r}; expected "
            "finite ones. Get the file again, or weights from before the training diverged."
        )
    return x


def open_file(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of one file by name."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: got no file; expected a safetensors file. Check the path.")

    def broken(what: str) -> ValueError:
        return ValueError(f"{path}: got {what}; expected a sound safetensors file. Get the file again.")

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER:
            raise broken(f"a header of {length:,} bytes, more than {HEADER:,}")
        try:
            with safe_open(path, framework="numpy"):
                pass
        except SafetensorError as error:
            raise broken(f"a file that the safetensors library refuses ({error})") from error
        header = parse_object(file.read(length), path)
    header.pop("__metadata__", None)
    if len(header) > TENSORS:
        raise broken(f"{len(header):,} tensors, more than {TENSORS:,}")
    tensors = {}
    for name, entry in header.items():
        dtype, shape = TYPES.get(entry["dtype"]), tuple(entry["shape"])
        if "\0" in name or name.startswith("/") or ".." in name.split("/"):
            raise broken(f"a tensor named {name!r}")
        if dtype is None:
            raise broken(f"the type {entry['dtype']!r} of {name!r}, which is none of {', '.join(TYPES)}")
        if len(shape) > AXES or max(shape, default=0) >= LENGTH:
            raise broken(f"the shape {list(shape)} of {name!r}")
        tensors[name] = Tensor(path, np.dtype(dtype), shape, 8 + length + entry["data_offsets"][0])
    return tensors


def open_folder(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a folder with model.safetensors, or with shards and their index."""
    folder = Path(folder)
    if (folder / SINGLE).is_file():
        return open_file(folder / SINGLE)
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(
            f"{folder}: got neither {SINGLE} nor {INDEX}; expected weights as safetensors (pickles of torch "
            "are not read). Convert them, or check the folder."
        )
    return open_shards(folder, INDEX, open_file)


def open_shards(folder: Path, name: str, open_one: Callable[[Path], dict[str, T]]) -> dict[str, T]:
    """The tensors of the files that an index names, each from the file that the index gives for it."""
    index = read_object(folder / name, limit=HEADER).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(shard, str) for shard in index.values()):
        raise ValueError(
            f"{folder / name}: got no weight_map; expected one from tensors to files. Get the file again."
        )
    shards = {}
    for shard in sorted(set(index.values())):
        strange = len(shard) > 200 or shard != Path(shard).name or shard in ("", ".", "..")
        if strange or "\\" in shard or "\0" in shard:
            raise ValueError(
                f"{folder / name}: got the shard {shard[:200]!r}; expected the name of a file beside it. Do "
                "not trust it."
            )
        if not (folder / shard).is_file():
            raise FileNotFoundError(
                f"{folder / shard}: got no file; expected a shard, as {name} names it. Get it."
            )
        shards[shard] = open_one(folder / shard)
    tensors: dict[str, T] = {}
    for tensor, shard in index.items():
        if tensor not in shards[shard]:
            raise ValueError(
                f"{folder / shard}: got no tensor {tensor!r}; expected it there by {name}. Get both files "
                "again."
            )
        tensors[tensor] = shards[shard][tensor]
    for shard, contents in shards.items():
        for tensor in contents:
            if tensor not in index:
                raise ValueError(
                    f"{folder / shard}: got the tensor {tensor!r}; expected those that {name} names. Get the "
                    "files of one release."
                )
    return tensors


def write_file(
    path: str | os.PathLike[str], tensors: Mapping[str, tuple[tuple[int, ...], Any, Callable[[], Any]]]
) -> None:
    """Writes tensors, each as (shape, type, function that gives it); the file appears when it is complete.

    One tensor is in memory at a time; the library's own writer takes all at once.
    """
    path = Path(path)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, (shape, dtype, _) in tensors.items():
        end = start + math.prod(shape) * np.dtype(dtype).itemsize
        header[name] = {"dtype": NAMES[np.dtype(dtype)], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path, durable=True) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape, dtype, give in tensors.values():
            x = np.asarray(np.asarray(give()).astype(dtype, copy=False), order="C")  # keeps scalars scalar
            assert x.shape == tuple(shape)
            file.write(x.reshape(-1).view(np.uint8).data)


def shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names in groups whose total sizes stay within the limit; a larger tensor is a group of its own."""
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
    """The files' names of these shards, as transformers expects them."""
    count = len(list(groups))
    return [SINGLE] if count == 1 else [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
