"""metrics.jsonl in a run's folder: one JSON object a line, a line for each logged step or evaluation."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxmodels.runs.files import open_appending, open_reading, read_lines, replacing

Tracker = Callable[[int, Mapping[str, float]], None]  # of a step and its values


def finite(tree: Any) -> Any:
    """A tree of dicts with None in place of every number that is not finite, which JSON cannot hold."""
    if isinstance(tree, Mapping):
        return {name: finite(value) for name, value in tree.items()}
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def json_lines(path: Path, warn: Callable[[str], None] = print) -> Tracker:
    """A tracker that appends complete lines to this file; a value that is not finite becomes null.

    Lines for which the disk has no room are kept in memory, and written with the next one.
    """
    waiting: list[str] = []

    def write(step: int, values: Mapping[str, float]) -> None:
        waiting.append(json.dumps(finite({"step": step, **values})) + "\n")
        try:
            append(path, "".join(waiting).encode())
            waiting.clear()
        except OSError as error:
            if len(waiting) == 1:
                with contextlib.suppress(OSError):  # the warning may go to the same full disk
                    warn(
                        f"{path} cannot be written ({error.strerror or error}); its lines are kept and tried "
                        "again"
                    )

    write.__qualname__ = "json_lines"
    return write


def append(path: Path, text: bytes) -> None:
    """Appends the whole text, or nothing of it where the disk has no room."""
    with os.fdopen(open_appending(path), "ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if file.write(text) != len(text):
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read(path: Path) -> list[dict[str, Any]]:
    """The lines as dicts; [] where there is no file. A line that was cut short is skipped.

    Of a file beyond runs.files.LOG_LIMIT, the end is read.
    """
    logged = []
    for text in read_lines(path)[0] if path.is_file() else ():
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text)
            if isinstance(line, dict) and "step" in line:
                logged.append(line)
    return logged


def truncate(path: Path, step: int) -> None:
    """Drops the lines after `step`, and a last line cut short by a kill."""
    if not path.is_file():
        return
    with (
        open_reading(path) as log,
        replacing(path) as kept,  # line by line: a long run's file need not fit into memory
    ):
        for line in log:
            try:
                if line.endswith(b"\n") and json.loads(line)["step"] <= step:
                    kept.write(line)
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
