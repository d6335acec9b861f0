"""Files from anywhere, read with one clear error, and packed ones with a limit on the unpacked bytes.

A few kilobytes can unpack to gigabytes and take hours. The limit counts the bytes that were produced, not
those that a file announces: `limit` bytes (FREE) are always allowed, and beyond that at most RATIO times the
file's own size (for text, TEXT_RATIO times). Text packs to a tenth and images not at all, so real data stays
below both; a file that does not can be unpacked beforehand.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

FREE = 256 << 20  # bytes
RATIO = 200
TEXT_FREE, TEXT_RATIO = (
    64 << 20,
    50,
)  # lower, because Python's values take several times the bytes of their text
PART = 1 << 20  # bytes read at once
# By a file's first bytes.
PACKERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}


class Unreadable(ValueError):
    """A file that its reader refuses; the message says which file, why, and what to do."""


@contextlib.contextmanager
def reading(what: str, expected: str, advice: str) -> Iterator[None]:
    """Turns any exception of a reader into Unreadable; an Unreadable passes unchanged."""
    try:
        yield
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"{what}: got {reason(error)}; expected {expected}. {advice}") from error


def reason(error: BaseException) -> str:
    """An error as a short text that is never empty."""
    text = " ".join(str(error).split())[:300]
    plain = isinstance(error, ValueError | OSError | EOFError | RuntimeError) and text
    return text if plain else f"{type(error).__name__}{': ' * bool(text)}{text}"


class Allowance:
    """The bytes that one packed file may still unpack to."""

    def __init__(self, path: Path, limit: int = FREE, ratio: int = RATIO):
        self.path, self.packed, self.ratio = path, path.stat().st_size, ratio
        self.most = self.left = max(limit, ratio * self.packed)

    def take(self, count: int) -> None:
        """Counts bytes that were produced, or are about to be; raises Unreadable where they are too many."""
        self.require(count)
        self.left -= count

    def require(self, count: int) -> None:
        """Raises Unreadable where fewer bytes than `count` are left."""
        if count > self.left:
            raise Unreadable(
                f"{self.path}: got a file of {self.packed:,} bytes that unpacks to more than {self.most:,}; "
                f"expected at most {self.ratio} times its size. Unpack it beforehand if you trust it"
            )


def checked(file: BinaryIO, check: Callable[[bytes], None], size: int = PART) -> BinaryIO:
    """The file, buffered; check(part) is called with every part of up to `size` bytes as it is read."""
    return io.BufferedReader(_Checked(file, check), size)


class _Checked(io.RawIOBase):
    def __init__(self, file: BinaryIO, check: Callable[[bytes], None]):
        self._file, self._check = file, check

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        part = self._file.read(min(len(into), PART))
        self._check(part)
        into[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()


def _counted(unpack: Any, path: Path, allowance: Allowance) -> BinaryIO:
    return checked(unpack(path, "rb"), lambda part: allowance.take(len(part)))


def unpacked(path: Path, allowance: Allowance) -> BinaryIO | None:
    """The unpacked content of a gzip, bzip2 or xz file, counted; None for any other file."""
    with path.open("rb") as file:
        first = file.read(6)
    for magic, unpack in PACKERS.items():
        if first.startswith(magic):
            return _counted(unpack, path, allowance)
    return None


def open_file(path: Path, limit: int = FREE, ratio: int = RATIO) -> BinaryIO:
    """A file's bytes, unpacked where its name ends in .gz."""
    if path.suffix != ".gz":
        return path.open("rb")
    return _counted(gzip.open, path, Allowance(path, limit, ratio))


def open_text(path: Path, limit: int = TEXT_FREE) -> BinaryIO:
    """The same for text, unpacked once more beforehand to be counted, in a tenth of the time of parsing
    it."""
    if path.suffix == ".gz":
        with open_file(path, limit, TEXT_RATIO) as file:
            while file.read(PART):
                pass
    return open_file(path, limit, TEXT_RATIO)
