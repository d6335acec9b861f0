"""Text files as one row of bytes, for WindowPipeline. A byte is a token, so there are 256 of them and nothing is lost."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data.folders import files_below

Split = Literal["train", "validation"]


def text_files(
    where: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    split: Split,
    *,
    pattern: str = "**/*.txt",
    fraction: float = 0.1,
) -> np.ndarray:
    """The files' bytes, uint8, each file behind one zero byte, sorted by path.

    where: a folder, whose files match the pattern (see data/folders.py), or the files themselves. About
    `fraction` of the files are for validation: a hash of a file's path within the folder (its name, where
    files are given) says which, so that a file stays on its side when others come or go.
    """
    choices.check("text_files", "split", split, Split)
    if isinstance(where, str | os.PathLike) and Path(where).is_dir():
        folder = Path(where)
        files = {path.relative_to(folder).as_posix(): path for path in files_below(folder, pattern=pattern)}
    else:
        given = [Path(where)] if isinstance(where, str | os.PathLike) else [Path(path) for path in where]
        missing = [str(path) for path in given if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"there is no file or folder {', '.join(missing)}; wanted text files; check the path"
            )
        files = {path.name: path for path in given}
        if len(files) < len(given):
            raise ValueError(
                "two of the files have the same name, which says on which side a file goes; rename one of them"
            )
    if not files:
        raise ValueError(
            f"nothing in {where} matches {pattern}; wanted text files; check the folder and the pattern"
        )
    return join(
        path.read_bytes()
        for name, path in files.items()
        if (split == "validation") == held_out(name, fraction)
    )


def held_out(name: str, fraction: float) -> bool:
    """Whether the file of this name is for validation."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") < fraction * 2**64


def join(documents: Iterable[bytes]) -> np.ndarray:
    """Documents as tokens, each behind one zero byte."""
    text = b"".join(b"\0" + document for document in documents)
    if not text:
        raise ValueError(
            "no file falls on this side of the split; wanted at least one; add files or change the fraction"
        )
    return np.frombuffer(text, np.uint8)
