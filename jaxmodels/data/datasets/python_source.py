"""The source of the running Python's standard library: about ten megabytes of text on every machine.

Results compare only within one Python version (see `sys.version`). A byte is a token; each file follows a
zero byte.
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
SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "turtledemo"}
TAIL = 4 << 20  # bytes of training text that lzma sees first


def python_source(
    split: Literal["train", "validation"], *, folder: str | os.PathLike[str] | None = None
) -> np.ndarray:
    """The *.py files of the standard library without its tests and turtledemo, uint8, sorted by path.

    Each file follows one zero byte. A hash of a file's path decides its split; a tenth of the files are for
    validation. folder: of another library.
    """
    choices.check("python_source", "split", split, ("train", "validation"))
    root = Path(folder if folder is not None else sysconfig.get_path("stdlib"))
    files = sorted((path.relative_to(root).as_posix(), path) for path in _sources(root))
    if not files:
        raise FileNotFoundError(
            f"there is no Python source in {root}: got no *.py; expected the standard library. Give its "
            "folder, or install it (some systems keep it in a separate package)"
        )
    return join(
        path.read_bytes() for name, path in files if (split == "validation") == held_out(name, FRACTION)
    )


def _sources(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED and not name.endswith("_test")]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


def order0_bits_per_byte(validation: np.ndarray) -> float:
    """The empirical entropy of the validation bytes: the size of the best code without context."""
    counts = np.bincount(validation, minlength=256)
    share = counts[counts > 0] / len(validation)
    return float(-(share * np.log2(share)).sum())


def lzma_bits_per_byte(train: np.ndarray, validation: np.ndarray, *, tail: int = TAIL) -> float:
    """The size that xz -9 (64 MiB dictionary) adds for validation bytes after `tail` bytes of training text.

    It is the compressed size of both minus that of the tail alone, so the compressor has learned from the
    tail only.
    """
    before = train[len(train) - min(tail, len(train)) :].tobytes()
    sizes = [len(lzma.compress(text, preset=9)) for text in (before, before + validation.tobytes())]
    return 8 * (sizes[1] - sizes[0]) / len(validation)
