"""The source of the running interpreter's standard library: real text of some ten megabytes that every Python has.

Results compare only within one Python version (see `sys.version`). A byte is a token; each file stands behind
a zero byte.
"""

from __future__ import annotations

import lzma
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data.formats.byte_text import held_out, join

FRACTION = 0.1  # of the files are for validation
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "turtledemo"}
TAIL = 4 << 20  # bytes of training text that lzma sees first


def python_source(
    split: Literal["train", "validation"], *, folder: str | os.PathLike[str] | None = None
) -> np.ndarray:
    """All *.py files of the standard library but its tests and turtledemo, uint8, each behind one zero byte, by path.

    A hash of a file's path says on which side it is; a tenth of the files are for validation. folder: another
    library.
    """
    choices.check("python_source", "split", split, ("train", "validation"))
    root = Path(folder if folder is not None else sysconfig.get_path("stdlib"))
    files = sorted((path.relative_to(root).as_posix(), path) for path in _sources(root))
    if not files:
        raise FileNotFoundError(
            f"there is no Python source in {root}; wanted the standard library as *.py; give its folder, or install it "
            "(some systems keep it in a package of its own)"
        )
    return join(
        path.read_bytes() for name, path in files if (split == "validation") == held_out(name, FRACTION)
    )


def _sources(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not name.endswith("_test")]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


def order0_bits_per_byte(validation: np.ndarray) -> float:
    """The empirical entropy of the validation bytes: what the best code that ignores context needs, knowing their counts."""
    counts = np.bincount(validation, minlength=256)
    share = counts[counts > 0] / len(validation)
    return float(-(share * np.log2(share)).sum())


def lzma_bits_per_byte(train: np.ndarray, validation: np.ndarray, *, tail: int = TAIL) -> float:
    """What xz -9 (dictionary of 64 MiB) adds for the validation bytes behind the last `tail` bytes of training text.

    That is the compressed size of both minus that of the tail alone, so the compressor has learned from the
    tail only.
    """
    before = train[len(train) - min(tail, len(train)) :].tobytes()
    sizes = [len(lzma.compress(text, preset=9)) for text in (before, before + validation.tobytes())]
    return 8 * (sizes[1] - sizes[0]) / len(validation)
