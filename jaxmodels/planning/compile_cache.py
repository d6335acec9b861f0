"""What was compiled before, by the content of the program."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxmodels import __version__
from jaxmodels.runs.files import read_json, write_json


def cached(lowered: Any, what: str, how: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """make(), or what it gave before for the same program, by its content."""
    content = "\n".join([what, how, jax.__version__, __version__, lowered.as_text()])
    path = folder() / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError):
        return read_json(path)
    made = make()
    with contextlib.suppress(
        OSError
    ):  # a full or read-only disk costs the next run time, not this one its result
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, made)
    return made


def folder() -> Path:
    """Where plans of programs that have been seen before lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxmodels" / "plans"
