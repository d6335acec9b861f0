"""Files of a run's folder: read if regular and small enough, written atomically: always the old or
the new file.

A folder may come from elsewhere. What it names is followed nowhere: a link, a FIFO or a device in place of a
file is refused before it is opened for reading, and no file is read beyond its limit.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from jaxmodels.launch.exit_statuses import BAD_INPUT

TEXT_LIMIT = 16 << 20  # bytes of an experiment's file, its knobs and whatever else people could read
LOG_LIMIT = 256 << 20  # bytes of a log, of which the end is read where it is longer


class BadFile(ValueError):
    """A file that is not what its name promises; the message says which and why."""

    exit_status = BAD_INPUT


def read_bytes(path: str | os.PathLike[str], *, limit: int = TEXT_LIMIT) -> bytes:
    """The content of a regular file; raises BadFile for a link, a special file, or more than limit bytes."""
    handle, size = _open(path)
    try:
        if size > limit:
            raise BadFile(
                f"{path}: got {size:,} bytes; expected at most {limit:,}. Remove it, or make it smaller"
            )
        content = _read(handle, limit + 1)  # a file that grows meanwhile ends here too
    finally:
        os.close(handle)
    if len(content) > limit:
        raise BadFile(
            f"{path}: got more than {limit:,} bytes; expected at most as many. Remove it, or make it smaller"
        )
    return content


def read_lines(path: str | os.PathLike[str], *, limit: int = LOG_LIMIT) -> tuple[list[bytes], bool]:
    """(a log's lines, whether earlier ones were skipped): those of its last `limit` bytes.

    The last line may be cut short.
    """
    handle, size = _open(path)
    try:
        if cut := size > limit:
            os.lseek(handle, size - limit, os.SEEK_SET)
        lines = _read(handle, limit).splitlines()
    finally:
        os.close(handle)
    return lines[1:] if cut else lines, cut


def inside(folder: str | os.PathLike[str], name: str) -> Path:
    """The path of a file below a folder, by its name there.

    Raises BadFile for links on the way, and for ways out.
    """
    path = Path(folder)
    for part in Path(name).parts:
        path = path / part
        if part in ("..", "/") or path.is_symlink():
            raise BadFile(
                f"{path}: got {'a link' if path.is_symlink() else 'a name that leads out'}; expected a file "
                "or a folder of its own. Copy what it names here, if you trust it"
            )
    return path


def regular(folder: str | os.PathLike[str], pattern: str = "*") -> list[Path]:
    """The regular files of a folder that match, by name.

    No links, and none where the folder is absent or a link.
    """
    folder = Path(folder)
    if folder.is_symlink() or not folder.is_dir():
        return []
    return [path for path in sorted(folder.glob(pattern)) if stat.S_ISREG(path.lstat().st_mode)]


def folders(folder: str | os.PathLike[str]) -> list[Path]:
    """The folders in a folder, by name; no links, and none where the folder is absent or a link."""
    folder = Path(folder)
    if folder.is_symlink() or not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if stat.S_ISDIR(path.lstat().st_mode)]


def open_reading(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file to be read piece by piece, however long it is."""
    return os.fdopen(_open(path)[0], "rb")


def open_appending(path: str | os.PathLike[str]) -> int:
    """A handle of a regular file that is appended to, such as a log or a lock; made where it is absent."""
    return _handle(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)


def _open(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(a handle of a regular file, its size)."""
    handle = _handle(path, os.O_RDONLY)
    return handle, os.fstat(handle).st_size


def _handle(path: str | os.PathLike[str], flags: int) -> int:
    """A handle of a regular file; a link and anything special are refused at once."""
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if Path(path).is_symlink():
            raise BadFile(
                f"{path}: got a link; expected a regular file. Copy the file that it names here, if you "
                "trust it"
            ) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BadFile(f"{path}: got a folder, a pipe or a device; expected a regular file. Remove it")
    return handle


def _read(handle: int, most: int) -> bytes:
    parts = []
    while most and (part := os.read(handle, min(most, 1 << 20))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def read_text(path: str | os.PathLike[str], *, limit: int = TEXT_LIMIT) -> str:
    """The UTF-8 text of a regular file, with newlines as they are."""
    try:
        return read_bytes(path, limit=limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadFile(
            f"{path}: got bytes that are no UTF-8 ({error}); expected text. Replace the file"
        ) from error


def read_json(path: str | os.PathLike[str], *, kind: type = dict, limit: int = TEXT_LIMIT) -> Any:
    """The JSON value in a file, of this kind; a name that stands twice in an object is refused."""
    text = read_text(path, limit=limit)
    try:
        found = json.loads(text, object_pairs_hook=_without_duplicates)
    except RecursionError as error:
        raise BadFile(
            f"{path}: got values nested too deeply; expected a plain JSON file. Replace the file"
        ) from error
    except ValueError as error:
        raise BadFile(
            f"{path}: got text that is no JSON ({error}); expected a JSON file. Replace the file"
        ) from error
    if not isinstance(found, kind):
        raise BadFile(
            f"{path}: got a JSON {type(found).__name__}; expected a {kind.__name__}. Replace the file"
        )
    return found


def _without_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name!r} is given twice")
        found[name] = value
    return found


@contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[BinaryIO]:
    """An open file that takes the place of this one at the end, or is removed where the writing fails.

    The file is at every moment the old one or the new one; durable: it survives a loss of power. The
    temporary file is new and in the same folder, whatever lies there; the file gets the mode that open()
    would give.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o666 & ~umask())
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def write_bytes(path: str | os.PathLike[str], content: bytes, *, durable: bool = False) -> None:
    """Writes a file that is at every moment the old one or the new one; see replacing."""
    with replacing(path, durable=durable) as file:
        file.write(content)


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


def umask() -> int:
    """The process's umask; Linux has it in a file, and elsewhere it can only be read by setting it."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))
    except (OSError, StopIteration):
        return 0o077
