"""What was learned by compiling a program, kept on disk by the program's content."""

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


def cached(
    lowered: jax.stages.Lowered, kind: str, settings: str, compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """compute(), or its earlier result for the same program, kind and settings."""
    content = "\n".join([kind, settings, jax.__version__, __version__, lowered.as_text()])
    path = folder() / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError):
        return read_json(path)
    result = compute()
    # A full or read-only disk costs the next plan time, not this one its result.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result)
    return result


def folder() -> Path:
    """The folder of the cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxmodels" / "plans"
