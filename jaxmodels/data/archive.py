"""Files in .zip and .tar archives (plain or compressed), read in memory: nothing is unpacked to disk.

An archive may come from anybody: links and devices are passed over, bytes are counted while unpacking and
sizes not believed (see data/unpack.py), and a member's name is a key and never a path that is opened.
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

from jaxmodels.data.unpack import PART, Allowance, Unreadable, existing, reading, unpacked

MEMBERS = 2_000_000  # at most, and of a small archive no more than SMALL or one for every EACH of its bytes
SMALL, EACH = 20_000, 8
BYTES = 8 << 30  # of all wanted members together, unpacked
TAR, ZIP = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"), (".zip",)


class Member:
    """A file of an archive, in memory."""

    def __init__(self, name: str, data: bytes):
        self.name, self.data = name, data

    def __repr__(self) -> str:
        return self.name

    @property
    def parts(self) -> list[str]:
        """The folders and the file in its name; files are in the order of these, as those of a folder are."""
        return [part for part in self.name.split("/") if part not in ("", ".")]


def opened(path: str | os.PathLike[str] | Member) -> BinaryIO:
    """A file of a folder or of an archive, to be read."""
    return io.BytesIO(path.data) if isinstance(path, Member) else open(path, "rb")


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether the name is an archive's."""
    return str(path).lower().endswith((*TAR, *ZIP))


def members(
    path: str | os.PathLike[str], wanted: Callable[[str], bool] = lambda name: True, *, limit: int = BYTES
) -> dict[str, bytes]:
    """The contents of the wanted files by name, in the archive's order; at most `limit` bytes of them together.

    A name that a .zip holds twice is refused; in a .tar the later member replaces the earlier one, as tar's
    own do.
    """
    path = existing(path)
    if not is_archive(path):
        raise Unreadable(
            f"{path} is no archive by its name: got {path.suffix or 'no ending'}; expected one of "
            f"{' '.join((*TAR, *ZIP))}. Rename or repack it"
        )
    found: dict[str, bytes] = {}
    left = limit
    with reading(f"{path} is damaged", "a whole archive", "Get it again"):
        for name, parts in (_zip if path.name.lower().endswith(ZIP) else _tar)(path, wanted):
            content = []
            for part in parts:
                content.append(part)
                left -= len(part)
                if left < 0:
                    raise Unreadable(
                        f"{path}: got an archive that unpacks to more than {limit:,} bytes; expected what fits into memory. "
                        "Unpack it to a folder beforehand"
                    )
            found[name] = b"".join(content)
    return found


class _Header(tarfile.TarInfo):
    """tarfile takes a damaged header for the end of the archive; here it is an error."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(archive)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a damaged header at byte {archive.offset:,}: {error}") from error


def _tar(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Iterator[bytes]]]:
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
            archive.members.clear()  # type: ignore[attr-defined]  # of millions, the list alone takes gigabytes
            count += 1
            _check_count(path, count)
            if not member.isfile() or not wanted(member.name):
                continue
            if member.issparse():  # its holes are produced here, not by the packer
                allowance.take(member.size)
            file = archive.extractfile(member)
            assert file is not None
            yield member.name, _parts(file, member.size)
        if stream is not None:
            while stream.read(PART):  # to the end, where the checksum is compared
                pass


def _zip(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Iterator[bytes]]]:
    allowance, seen = Allowance(path), set()
    with zipfile.ZipFile(path) as archive:
        for count, info in enumerate(archive.infolist(), 1):
            _check_count(path, count)
            if (
                info.is_dir()
                or (info.external_attr >> 16) & 0o170000 == 0o120000
                or not wanted(info.filename)
            ):
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
            f"{path}: got an archive that has more than {most:,} members; expected a data set. Unpack it and look what "
            "it holds"
        )
