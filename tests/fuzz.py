"""Files that are nearly right: what a reader of foreign bytes is tried with, the same ones in every run.

for damaged in mutations(whole, 300):
    attempt(lambda: read(damaged))  # gives a value, or raises one clear error
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

NUMBERS = (
    0,
    1,
    2**7,
    2**8 - 1,
    2**15,
    2**16 - 1,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
WORDS = (
    b"",
    b"\0",
    b"\n",
    b"\r",
    b'"',
    b"'",
    b"-1",
    b"1e999",
    b"nan",
    b"[" * 3000,
    b"{",
    b"}",
    b",",
    b"null",
    b"\xff\xfe",
    b"../",
)
PARTS = re.compile(r"(?s)\bgot\b.+;.*\bexpected\b.+\. \S")  # what came; what was expected. What to do


def mutations(whole: bytes, count: int, *, seed: int = 0, others: Sequence[bytes] = ()) -> Iterator[bytes]:
    """`count` damaged copies, each changed in one to four positions.

    Bits are flipped, ends cut off, bytes or words inserted, pieces doubled or removed, numbers of 1 to 8
    bytes in either order overwritten by extreme ones, and pieces of `others` (or of the file itself) set in.
    """
    for case in range(count):
        rng = np.random.default_rng([seed, case])
        data = bytearray(whole)
        for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
            _change(data, rng, others)
        yield bytes(data)


def _change(data: bytearray, rng: np.random.Generator, others: Sequence[bytes]) -> None:
    near_the_start = rng.random() < 0.5  # most formats announce there what follows
    size = min(len(data), 256) if near_the_start else len(data)
    at = int(rng.integers(size + 1))
    length = int(rng.integers(1, 1 + min(64, max(1, len(data)))))
    piece = data[at : at + length]
    match int(rng.integers(9)):
        case 0 if at < len(data):
            data[at] ^= 1 << int(rng.integers(8))
        case 1 if at < len(data):
            data[at] = int(rng.integers(256))
        case 2:
            del data[int(rng.integers(len(data) + 1)) :]
        case 3:
            data[at:at] = rng.bytes(length)
        case 4:
            data[at:at] = WORDS[int(rng.integers(len(WORDS)))]
        case 5:
            data[at:at] = piece * int(rng.choice([1, 1, 40]))
        case 6:
            del data[at : at + length]
        case 7:
            width, order = int(rng.choice([1, 2, 4, 8])), "little" if rng.random() < 0.5 else "big"
            number = NUMBERS[int(rng.integers(len(NUMBERS)))] % 256**width
            data[at : at + width] = number.to_bytes(width, order)  # type: ignore[arg-type]
        case 8:
            source = bytes(others[int(rng.integers(len(others)))]) if others else bytes(data)
            start = int(rng.integers(len(source) + 1))
            data[at : at + length] = source[start : start + length]


def attempt(read: Callable[[], Any], *, seconds: float = 10) -> Any:
    """What read() gives, or None where it refuses by one error of the kind that users see.

    Fails for any other error, for a message without the three parts (got ...; expected .... Do ...), and
    where it takes longer.
    """
    began = time.monotonic()
    try:
        found = read()
    except (ValueError, OSError) as error:
        assert not isinstance(error, UnicodeError) and PARTS.search(str(error)), (
            f"{type(error).__name__}: {error}"
        )
        found = None
    assert time.monotonic() - began < seconds
    return found


def survey(
    read: Callable[[bytes], Any], whole: bytes, count: int, *, seed: int = 0, others: Sequence[bytes] = ()
) -> int:
    """Tries read with `count` damaged copies; gives how many it read. The whole one must be readable."""
    assert attempt(lambda: read(whole)) is not None
    found = 0
    for case, data in enumerate(mutations(whole, count, seed=seed, others=others)):
        try:
            found += attempt(lambda data=data: read(data)) is not None
        except BaseException as error:
            error.add_note(f"case {case} of seed {seed}: {data[:200]!r}")
            raise
    return found
