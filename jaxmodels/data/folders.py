"""Which files of a folder are data, and in which order: one rule for every reader of folders and archives.

Hidden files and folders (.git, .DS_Store, ._x of macOS) and files that systems create (__MACOSX, Thumbs.db,
desktop.ini) are skipped. Links are followed; a link to a folder that contains it is skipped, so every walk
ends. The order is by the parts of the path, by Unicode code points: no locale and no file system changes it.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path

SYSTEM_FILES = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini"}


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden or a system's own, and so no data."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def existing_folder(path: str | os.PathLike[str], expected: str) -> Path:
    """The path of a folder; raises FileNotFoundError where there is none. expected: what it holds."""
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(
            f"there is no folder {path}: {_nowhere()}; expected {expected}. Check the path"
        )
    return path


def existing_file(path: str | os.PathLike[str], expected: str = "a file") -> Path:
    """The path of a regular file; raises FileNotFoundError where there is none. expected: what it is."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: {_nowhere()}; expected {expected}. Check the path")
    return path


def _nowhere() -> str:
    return f"got a path that does not exist (working folder {Path.cwd()})"


def files_below(
    folder: str | os.PathLike[str], *, pattern: str = "**", endings: tuple[str, ...] = ("",)
) -> list[Path]:
    """The files in the folder and its subfolders, sorted.

    pattern: of the path below the folder, as for Path.glob; one with a part that begins with a dot includes
        hidden files.
    endings: of the names, in lower case.
    """
    folder = Path(folder)
    patterns = tuple(pattern.split("/"))
    hidden = any(part.startswith(".") for part in patterns)
    files = []
    for path in _walk(folder, hidden, [os.stat(folder)]):
        if _matches(path.relative_to(folder).parts, patterns) and path.name.lower().endswith(endings):
            files.append(path)
    return sorted(files, key=lambda path: path.parts)


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


def _matches(names: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    """Whether a path, by its parts, matches the pattern: ** is any folders, * and ? stay within a name."""
    if not patterns or not names:
        return not patterns and not names
    if patterns[0] == "**":
        return len(patterns) == 1 or any(_matches(names[i:], patterns[1:]) for i in range(len(names)))
    return fnmatch.fnmatchcase(names[0], patterns[0]) and _matches(names[1:], patterns[1:])
