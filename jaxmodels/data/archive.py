"""Files in .zip and .tar archives (plain or compressed), read in memory: nothing is unpacked to disk.

An archive may come from anywhere: links and devices are skipped, bytes are counted while unpacking and
announced sizes not trusted (see data/unpack.py), and a member's name is a key and never a path to open.
"""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from jaxmodels.data.folders import existing_file
from jaxmodels.data.unpack import PART, Allowance, Unreadable, reading, unpacked

MEMBERS = 2_000_000  # at most; of a small archive at most SMALL, or one for every EACH of its bytes
SMALL, EACH = 20_000, 8
BYTES = 8 << 30  # of all chosen members together, unpacked
TAR, ZIP = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"), (".zip",)


class Member:
    """A file of an archive, in memory."""

    def __init__(self, name: str, data: bytes):
        self.name, self.data = name, data

    def __repr__(self) -> str:
        return self.name

    @property
    def parts(self) -> list[str]:
        """The folders and the file in its name, by which the files of an archive are sorted."""
        return [part for part in self.name.split("/") if part not in ("", ".")]


def opened(path: str | os.PathLike[str] | Member) -> BinaryIO:
    """A file of a folder or of an archive, opened for reading."""
    return io.BytesIO(path.data) if isinstance(path, Member) else open(path, "rb")


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether this is an archive, by its name."""
    return str(path).lower().endswith((*TAR, *ZIP))


def members(
    path: str | os.PathLike[str], chosen: Callable[[str], bool] = lambda name: True, *, limit: int = BYTES
) -> dict[str, bytes]:
    """The contents of the chosen files by name, in the archive's order; at most `limit` bytes together.

    A name that occurs twice in a .zip is refused; in a .tar the later member replaces the earlier one, as in
    tar itself.
    """
    path = existing_file(path)
    if not is_archive(path):
        raise Unreadable(
            f"{path} is no archive by its name: got {path.suffix or 'no ending'}; expected one of "
            f"{' '.join((*TAR, *ZIP))}. Rename or repack it"
        )
    contents: dict[str, bytes] = {}
    left = limit
    with reading(f"{path} is damaged", "a whole archive", "Get it again"):
        for name, parts in (_zip if path.name.lower().endswith(ZIP) else _tar)(path, chosen):
            content = []
            for part in parts:
                content.append(part)
                left -= len(part)
                if left < 0:
                    raise Unreadable(
                        f"{path}: got an archive that unpacks to more than {limit:,} bytes; expected one "
                        "that fits into memory. Unpack it to a folder beforehand"
                    )
            contents[name] = b"".join(content)
    return contents


class _Header(tarfile.TarInfo):
    """A header of tar that raises where it is damaged; tarfile takes that for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(archive)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a damaged header at byte {archive.offset:,}: {error}") from error


def _tar(path: Path, chosen: Callable[[str], bool]) -> Iterator[tuple[str, Iterator[bytes]]]:
    allowance = Allowance(path)
    with ExitStack() as stack:
        stream = unpacked(path, allowance)
        if stream is None:
            archive = stack.enter_context(tarfile.open(path, "r:", tarinfo=_Header))
        else:
            stack.enter_context(stream)
            archive = stack.enter_context(
                tarfile.open(fileobj=stream, mode="r|", bufsize=PART, tarinfo=_Header)
            )
        count = 0
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # with millions, the list alone takes gigabytes
            count += 1
            _check_count(path, count)
            if not member.isfile() or not chosen(member.name):
                continue
            if member.issparse():  # its holes are not in the packed bytes
                allowance.take(member.size)
            file = archive.extractfile(member)
            assert file is not None
            yield member.name, _parts(file, member.size)
        if stream is not None:
            while stream.read(PART):  # to the end, where the checksum is compared
                pass


def _zip(path: Path, chosen: Callable[[str], bool]) -> Iterator[tuple[str, Iterator[bytes]]]:
    allowance, seen = Allowance(path), set()
    with zipfile.ZipFile(path) as archive:
        for count, info in enumerate(archive.infolist(), 1):
            _check_count(path, count)
            is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
            if info.is_dir() or is_link or not chosen(info.filename):
                continue
            if info.filename in seen:
                raise ValueError(f"the name {info.filename!r} twice")
            seen.add(info.filename)
            with archive.open(info) as file:
                yield info.filename, _parts(file, info.file_size, allowance)


def _parts(file: Any, size: int, allowance: Allowance | None = None) -> Iterator[bytes]:
    got = 0
    while part := file.read(PART):
        got += len(part)
        if allowance is not None:
            allowance.take(len(part))
        yield part
    if got != size:
        raise ValueError(f"a member of {size:,} bytes that ends after {got:,}")


def _check_count(path: Path, count: int) -> None:
    most = min(MEMBERS, max(SMALL, path.stat().st_size // EACH))
    if count > most:
        raise Unreadable(
            f"{path}: got an archive with more than {most:,} members; expected a data set. Unpack it and "
            "look what it holds"
        )
