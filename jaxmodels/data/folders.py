"""Which files of a folder are data, in which order: one rule for every reader of folders and archives.

Left out are hidden files and folders (.git, .DS_Store, ._x of macOS) and what systems leave lying about
(__MACOSX, Thumbs.db, desktop.ini). Links are followed; one to a folder that it lies in is passed over, so
every walk ends. The order is by the parts of the path, letter by letter as Unicode numbers them: no locale
and no file system changes it.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path

LITTER = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini"}


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data."""
    return name.startswith(".") or name.lower() in LITTER


def files_below(
    folder: str | os.PathLike[str], *, pattern: str = "**", endings: tuple[str, ...] = ("",)
) -> list[Path]:
    """The files in the folder and its folders, sorted.

    pattern: of the path from the folder on, as of Path.glob; one with a part that begins with a dot asks for
        hidden files.
    endings: of the names, in small letters.
    """
    folder = Path(folder)
    patterns = tuple(pattern.split("/"))
    asked = any(part.startswith(".") for part in patterns)
    found = []
    for path in _walk(folder, asked, [os.stat(folder)]):
        if _fits(path.relative_to(folder).parts, patterns) and path.name.lower().endswith(endings):
            found.append(path)
    return sorted(found, key=lambda path: path.parts)


def _walk(folder: Path, hidden: bool, above: list[os.stat_result]) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name) and not hidden:
                continue
            if entry.is_file():
                yield folder / entry.name
            elif entry.is_dir():
                here = os.stat(entry.path)
                if not any(os.path.samestat(here, other) for other in above):
                    yield from _walk(folder / entry.name, hidden, [*above, here])


def _fits(names: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    """Whether a path, by its parts, is one of the pattern's: ** is any folders, * and ? stay within a name."""
    if not patterns or not names:
        return not patterns and not names
    if patterns[0] == "**":
        return len(patterns) == 1 or any(_fits(names[i:], patterns[1:]) for i in range(len(names)))
    return fnmatch.fnmatchcase(names[0], patterns[0]) and _fits(names[1:], patterns[1:])
