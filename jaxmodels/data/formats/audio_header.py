"""Whether a recording is as long as its header announces: libsndfile reads a truncated one as shorter."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

from jaxmodels.data.archive import Member, opened

# Lengths that are written to a pipe, where the real length is not known yet.
STREAMED = (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x7FFFFFFF - 36)
CHUNKS = 10_000


def check_complete(path: str | os.PathLike[str] | Member) -> None:
    """Raises ValueError for a WAV, AIFF or Ogg file that is not as long as it announces; checks no other
    format."""
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


def _check_chunks(file: BinaryIO, size: int, samples: bytes, order: str) -> None:
    """Walks over a file's chunks; `samples` is the name of the one with the samples."""
    position, held, block, long = 12, -1, 1, 0
    for _ in range(CHUNKS):
        file.seek(position)
        name, length = file.read(4), int.from_bytes(file.read(4), order)  # type: ignore[arg-type]
        if len(name) < 4 or position + 8 > size:
            break
        if held >= 0 and not _is_chunk(name, position + 8 + length, size):
            file.seek(position)
            if file.read(1 << 16).strip(b"\0"):
                raise ValueError(
                    f"got a header that announces {held // block:,} frames, and {size - position:,} bytes "
                    "after them that are no chunk; expected a whole recording. Get it again"
                )
            break
        if name == b"fmt ":
            file.seek(position + 8 + 12)
            block = int.from_bytes(file.read(2), order) or 1  # type: ignore[arg-type]
        if name == b"COMM":
            file.seek(position + 8)
            common = file.read(8)
            channels, bits = int.from_bytes(common[:2], "big"), int.from_bytes(common[6:], "big")
            block = max(1, channels * ((bits + 7) // 8))
        if name == b"ds64":  # of RF64: the length of the samples, which may not fit into 32 bits
            long = int.from_bytes(file.read(16)[8:], "little")
        if name == samples:
            length = long or length
            if length in STREAMED and order == "little":
                return
            held = length
            if position + 8 + length > size:
                raise ValueError(
                    f"got a header that announces {length // block:,} frames, and an end after "
                    f"{(size - position - 8) // block:,}; expected a whole recording. Get it again"
                )
        position += 8 + length + length % 2
    if held < 0:
        raise ValueError("got an end before its samples begin; expected a whole recording. Get it again")


def _is_chunk(name: bytes, end: int, size: int) -> bool:
    """Whether the bytes after the samples are a chunk of the file, or the tag that players append."""
    return (all(32 <= letter < 127 for letter in name) and end <= size) or name[:3] == b"TAG"


def _check_last_page(file: BinaryIO, size: int) -> None:
    """An Ogg stream ends in a whole page with the flag that says so (RFC 3533, section 6)."""
    file.seek(max(0, size - (1 << 17)))  # a page has at most 65,307 bytes
    tail = file.read()
    start = tail.rfind(b"OggS")
    page = tail[start:] if start >= 0 else b""
    segments = page[26] if len(page) > 26 else 0
    complete = len(page) >= 27 + segments and len(page) >= 27 + segments + sum(page[27 : 27 + segments])
    if not complete or not page[5] & 4:
        raise ValueError(
            "got an end before the page that is marked as the last; expected a whole recording. Get it again"
        )
