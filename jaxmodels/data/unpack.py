"""Foreign files read with one clear error, and packed ones with a limit on what comes out of them.

A few kilobytes can stand for gigabytes and for hours. What counts is what was produced, not what a file
announces: up to `limit` bytes (FREE) always, and beyond that at most RATIO times the file's own size (of
text, TEXT_RATIO times). Text packs to a tenth, pictures not at all, so data meets neither; whoever has a file
that does unpacks it beforehand.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

FREE = 256 << 20  # bytes
RATIO = 200
TEXT_FREE, TEXT_RATIO = 64 << 20, 50  # as Python's values a text takes several times as many bytes
PART = 1 << 20  # bytes read at once
PACKERS: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}  # by a file's first bytes


class Unreadable(ValueError):
    """A file that its reader refuses; the message says which, why, and what to do."""


@contextlib.contextmanager
def reading(what: str, expected: str, advice: str) -> Iterator[None]:
    """Whatever a reader of foreign bytes raises becomes one Unreadable; one that is raised within passes."""
    try:
        yield
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"{what}: got {reason(error)}; expected {expected}. {advice}") from error


def reason(error: BaseException) -> str:
    """An error in a few words, never empty."""
    text = " ".join(str(error).split())[:300]
    plain = isinstance(error, ValueError | OSError | EOFError | RuntimeError) and text
    return text if plain else f"{type(error).__name__}{': ' * bool(text)}{text}"


def existing(path: str | os.PathLike[str]) -> Path:
    """The path of a regular file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {path}: got a path that leads to none (working folder {Path.cwd()}); expected a file. "
            "Check the path"
        )
    return path


class Allowance:
    """Bytes that may still come out of one packed file."""

    def __init__(self, path: Path, limit: int = FREE, ratio: int = RATIO):
        self.path, self.packed, self.ratio = path, path.stat().st_size, ratio
        self.most = self.left = max(limit, ratio * self.packed)

    def take(self, count: int) -> None:
        """Counts what was produced, or what is about to be."""
        self.require(count)
        self.left -= count

    def require(self, count: int) -> None:
        """Raises where as many bytes are not left."""
        if count > self.left:
            raise Unreadable(
                f"{self.path}: got a file of {self.packed:,} bytes that unpacks to more than {self.most:,}; expected at "
                f"most {self.ratio} times its size. Unpack it beforehand if you trust it"
            )


class _Counted(io.RawIOBase):
    """A stream whose bytes are counted as they come."""

    def __init__(self, file: BinaryIO, allowance: Allowance):
        self._file, self._allowance = file, allowance

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        part = self._file.read(min(len(into), PART))
        self._allowance.take(len(part))
        into[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()


def _counted(unpack: Any, path: Path, allowance: Allowance) -> BinaryIO:
    return io.BufferedReader(_Counted(unpack(path, "rb"), allowance), PART)


def unpacked(path: Path, allowance: Allowance) -> BinaryIO | None:
    """The content of a file that gzip, bzip2 or xz has packed, counted; None of any other."""
    with path.open("rb") as file:
        first = file.read(6)
    for magic, unpack in PACKERS.items():
        if first.startswith(magic):
            return _counted(unpack, path, allowance)
    return None


def open_file(path: Path, limit: int = FREE, ratio: int = RATIO) -> BinaryIO:
    """A file's bytes; of one whose name ends in .gz, unpacked."""
    if path.suffix != ".gz":
        return path.open("rb")
    return _counted(gzip.open, path, Allowance(path, limit, ratio))


def open_text(path: Path, limit: int = TEXT_FREE) -> BinaryIO:
    """The same for text. It is unpacked once to be counted, which takes a tenth of the time of reading what is in it."""
    if path.suffix == ".gz":
        with open_file(path, limit, TEXT_RATIO) as file:
            while file.read(PART):
                pass
    return open_file(path, limit, TEXT_RATIO)
