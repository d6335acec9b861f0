"""Whether a recording holds what its header announces: libsndfile reads a cut one as a shorter one, without a word."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

from jaxmodels.data.archive import Member, opened

STREAMED = (
    0xFFFFFFFF,
    0x7FFFFFFF,
    0x7FFFF000,
    0x7FFFFFFF - 36,
)  # what writers to pipes announce, who cannot know
CHUNKS = 10_000


def check_whole(path: str | os.PathLike[str] | Member) -> None:
    """Raises ValueError for a WAV, AIFF or Ogg file that is shorter, or longer, than it says; knows no other format."""
    with opened(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        head = file.read(12)
        if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:] == b"WAVE":
            _check_chunks(file, size, b"data", "big" if head[:4] == b"RIFX" else "little")
        elif head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
            _check_chunks(file, size, b"SSND", "big")
        elif head[:4] == b"OggS":
            _check_last_page(file, size)


def _check_chunks(file: BinaryIO, size: int, wanted: bytes, order: str) -> None:
    at, held, block, long = 12, -1, 1, 0
    for _ in range(CHUNKS):
        file.seek(at)
        name, length = file.read(4), int.from_bytes(file.read(4), order)  # type: ignore[arg-type]
        if len(name) < 4 or at + 8 > size:
            break
        if held >= 0 and not _is_chunk(name, at + 8 + length, size):
            file.seek(at)
            if file.read(1 << 16).strip(b"\0"):
                raise ValueError(
                    f"its header announces {held // block:,} frames, and {size - at:,} bytes follow that are none of its "
                    "chunks; wanted a whole recording; get it again"
                )
            break
        if name == b"fmt ":
            file.seek(at + 8 + 12)
            block = int.from_bytes(file.read(2), order) or 1  # type: ignore[arg-type]
        if name == b"COMM":
            file.seek(at + 8)
            facts = file.read(8)
            block = max(1, int.from_bytes(facts[:2], "big") * ((int.from_bytes(facts[6:], "big") + 7) // 8))
        if name == b"ds64":  # of RF64: the length of the samples, which 32 bits do not hold
            long = int.from_bytes(file.read(16)[8:], "little")
        if name == wanted:
            length = long or length
            if length in STREAMED and order == "little":
                return
            held = length
            if at + 8 + length > size:
                raise ValueError(
                    f"its header announces {length // block:,} frames, and it ends after {(size - at - 8) // block:,}; "
                    "wanted a whole recording; get it again"
                )
        at += 8 + length + length % 2
    if held < 0:
        raise ValueError("it ends before its samples begin; wanted a whole recording; get it again")


def _is_chunk(name: bytes, end: int, size: int) -> bool:
    """Whether what follows the samples is a chunk of the file, or the tag that players append to any file."""
    return (all(32 <= letter < 127 for letter in name) and end <= size) or name[:3] == b"TAG"


def _check_last_page(file: BinaryIO, size: int) -> None:
    """An Ogg stream ends in a whole page with the flag that says so (RFC 3533, section 6)."""
    file.seek(max(0, size - (1 << 17)))  # a page has at most 65,307 bytes
    tail = file.read()
    at = tail.rfind(b"OggS")
    page = tail[at:] if at >= 0 else b""
    segments = page[26] if len(page) > 26 else 0
    whole = len(page) >= 27 + segments and len(page) >= 27 + segments + sum(page[27 : 27 + segments])
    if not whole or not page[5] & 4:
        raise ValueError(
            "it ends before the page that is marked as its last; wanted a whole recording; get it again"
        )
