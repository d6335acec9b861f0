"""JSON files written with the sha256 of their content, and refused where a bit of them has changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from jaxmodels.runs import files


class Damaged(files.BadFile):
    """A checkpoint, or a file of a run, that is not what was written."""


def write(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON object that has no "sha256" itself; durable."""
    files.write_text(path, _text(value), durable=True)


def read(path: Path) -> dict[str, Any]:
    """What was written; raises Damaged where any bit of the file is another, or the file is absent."""
    try:
        text = files.read_text(path)
        value = {name: x for name, x in json.loads(text).items() if name != "sha256"}
        if text != _text(value):
            raise ValueError("its content has changed since it was written")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(
            f"{path} is damaged: {error}. Copy it back from where it was intact, or start over with --fresh"
        ) from error
    return value


def _text(value: dict[str, Any]) -> str:
    return json.dumps({**value, "sha256": hashlib.sha256(json.dumps(value).encode()).hexdigest()})
