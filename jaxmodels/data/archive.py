"""Files in .zip and .tar archives (plain or compressed), read in memory: nothing is unpacked to disk.

An archive may come from anybody: links and devices are passed over, sizes are counted while unpacking and not believed, and
a member's name is a key and never a path that is opened.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

MEMBERS = 2_000_000  # at most
BYTES = 8 << 30  # of all wanted members together, unpacked
TAR, ZIP = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"), (".zip",)


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether the name is an archive's."""
    return str(path).lower().endswith((*TAR, *ZIP))


def members(
    path: str | os.PathLike[str], wanted: Callable[[str], bool] = lambda name: True, *, limit: int = BYTES
) -> dict[str, bytes]:
    """The contents of the wanted files by name, in the archive's order; at most `limit` bytes of them together."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; wanted an archive; check the path")
    if not is_archive(path):
        raise ValueError(f"{path} is no archive by its name; wanted one of {' '.join((*TAR, *ZIP))}; rename or repack it")
    try:
        return _zip(path, wanted, limit) if path.name.lower().endswith(ZIP) else _tar(path, wanted, limit)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, NotImplementedError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged ({reason}); wanted a whole archive; get it again") from error


def _tar(path: Path, wanted: Callable[[str], bool], limit: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    left = limit
    with tarfile.open(path, "r:*") as archive:
        for count, member in enumerate(archive):
            _count(path, count)
            if not member.isfile() or not wanted(member.name):
                continue
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = file.read(left + 1)
            left = _room(path, left - len(found[member.name]), limit)
    return found


def _zip(path: Path, wanted: Callable[[str], bool], limit: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    left = limit
    with zipfile.ZipFile(path) as archive:
        for count, info in enumerate(archive.infolist()):
            _count(path, count)
            if info.is_dir() or (info.external_attr >> 16) & 0o170000 == 0o120000 or not wanted(info.filename):
                continue
            with archive.open(info) as file:
                found[info.filename] = file.read(left + 1)
            left = _room(path, left - len(found[info.filename]), limit)
    return found


def _count(path: Path, count: int) -> None:
    if count >= MEMBERS:
        raise ValueError(f"{path} has more than {MEMBERS:,} members; wanted a data set; unpack it and look what it holds")


def _room(path: Path, left: int, limit: int) -> int:
    if left < 0:
        raise ValueError(
            f"{path} unpacks to more than {limit:,} bytes; wanted what fits into memory; unpack it to a folder beforehand"
        )
    return left
