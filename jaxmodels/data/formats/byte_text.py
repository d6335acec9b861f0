"""Text files as one array of bytes, for WindowPipeline: a byte is a token, and no text is lost."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data.folders import existing_file, files_below

PathLike = str | os.PathLike[str]
Split = Literal["train", "validation"]


def text_files(
    where: PathLike | Sequence[PathLike],
    split: Split,
    *,
    pattern: str = "**/*.txt",
    fraction: float = 0.1,
) -> np.ndarray:
    """The files' bytes, uint8, each file after one zero byte, sorted by path.

    where: a folder, whose files match the pattern (see data/folders.py), or the files themselves. About
    `fraction` of the files are for validation: a hash of a file's path within the folder (its name, where
    files are given) decides, so that a file stays in its split when others are added or removed.
    """
    choices.check("text_files", "split", split, Split)
    files = splits(where, pattern=pattern, fraction=fraction)[split]
    return join(path.read_bytes() for path in files)


def splits(where: PathLike | Sequence[PathLike], *, pattern: str, fraction: float) -> dict[Split, list[Path]]:
    """The text files of both splits; see text_files."""
    if isinstance(where, str | os.PathLike) and Path(where).is_dir():
        folder = Path(where)
        files = {path.relative_to(folder).as_posix(): path for path in files_below(folder, pattern=pattern)}
    else:
        given = [where] if isinstance(where, str | os.PathLike) else where
        paths = [existing_file(path, "a text file or a folder of them") for path in given]
        files = {path.name: path for path in paths}
        if len(files) < len(paths):
            raise ValueError(
                f"text files: got {len(paths)} files of {len(files)} names; expected names that differ, "
                "because a file's name decides its split. Rename one of them"
            )
    if not files:
        raise ValueError(
            f"{where}: got no file that matches {pattern}; expected text files. Check the folder and the "
            "pattern"
        )
    found: dict[Split, list[Path]] = {"train": [], "validation": []}
    for name, path in files.items():
        found["validation" if held_out(name, fraction) else "train"].append(path)
    return found


def held_out(name: str, fraction: float) -> bool:
    """Whether the file of this name is for validation."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") < fraction * 2**64


def join(documents: Iterable[bytes]) -> np.ndarray:
    """Documents as tokens (uint8), each after one zero byte."""
    text = b"".join(b"\0" + document for document in documents)
    if not text:
        raise ValueError(
            "text files: got none in this split; expected at least one. Add files or change the fraction"
        )
    return np.frombuffer(text, np.uint8)
