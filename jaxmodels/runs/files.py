"""Files of a run's folder: read where regular and small enough, written so that they are always the old or the new one.

A folder may come from elsewhere. What it names is followed nowhere: a link, a FIFO or a device in place of a file is refused
before it is opened for reading, and no file is read beyond its limit.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TEXT_LIMIT = 16 << 20  # bytes of an experiment's file, its knobs and whatever else people could read


class BadFile(ValueError):
    """A file that is not what its name promises; the message says which and why."""


def read_bytes(path: str | os.PathLike[str], *, limit: int = TEXT_LIMIT) -> bytes:
    """The content of a regular file of at most limit bytes; raises BadFile for a link, a special file or a larger one."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if Path(path).is_symlink():
            raise BadFile(
                f"{path}: got a link; expected a regular file. Copy the file that it names here, if you trust it"
            ) from error
        raise
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise BadFile(f"{path}: got a folder, a pipe or a device; expected a regular file. Remove it")
        if facts.st_size > limit:
            raise BadFile(f"{path}: got {facts.st_size:,} bytes; expected at most {limit:,}. Remove it, or make it smaller")
        parts, left = [], limit + 1  # a file that grows meanwhile ends here too
        while left and (part := os.read(handle, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
        if not left:
            raise BadFile(f"{path}: got more than {limit:,} bytes; expected at most as many. Remove it, or make it smaller")
    finally:
        os.close(handle)
    return b"".join(parts)


def read_text(path: str | os.PathLike[str], *, limit: int = TEXT_LIMIT) -> str:
    """The UTF-8 text of a regular file, with newlines as they are."""
    try:
        return read_bytes(path, limit=limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: got bytes that are no UTF-8 ({error}); expected text. Replace the file") from error


def read_json(path: str | os.PathLike[str], *, kind: type = dict, limit: int = TEXT_LIMIT) -> Any:
    """The JSON value in a file, a dict unless another kind is asked for; a name given twice in an object is refused."""
    text = read_text(path, limit=limit)
    try:
        found = json.loads(text, object_pairs_hook=_without_duplicates)
    except RecursionError as error:
        raise BadFile(f"{path}: got values nested too deeply; expected a plain JSON file. Replace the file") from error
    except ValueError as error:
        raise BadFile(f"{path}: got text that is no JSON ({error}); expected a JSON file. Replace the file") from error
    if not isinstance(found, kind):
        raise BadFile(f"{path}: got a JSON {type(found).__name__}; expected a {kind.__name__}. Replace the file")
    return found


def _without_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name!r} is given twice")
        found[name] = value
    return found


def write_bytes(path: str | os.PathLike[str], content: bytes, *, durable: bool = False) -> None:
    """Writes a file that is at every moment the old one or the new one; durable: it survives a loss of power.

    The temporary file is new and in the same folder, whatever lies there; the file gets the mode that open() would give.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def write_text(path: str | os.PathLike[str], text: str, *, durable: bool = False) -> None:
    """The same for text, as UTF-8."""
    write_bytes(path, text.encode("utf-8"), durable=durable)


def write_json(path: str | os.PathLike[str], value: Any, *, durable: bool = False) -> None:
    """The same for a JSON value; what JSON cannot hold is written as its text."""
    write_text(path, json.dumps(value, indent=1, default=str), durable=durable)


def sync(path: str | os.PathLike[str]) -> None:
    """Returns when a file's or a folder's content is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """The process's umask; Linux has it in a file, and elsewhere it can only be read by setting it."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))
    except (OSError, StopIteration):
        return 0o077
