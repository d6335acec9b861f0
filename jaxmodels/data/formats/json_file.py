"""A JSON object in a file from anywhere: of bounded size, and with each key once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jaxmodels.data.folders import existing_file

LIMIT = 16 << 20  # bytes of a file, by default


def read_object(path: Path, *, limit: int = LIMIT) -> dict[str, Any]:
    """The object in a file of at most `limit` bytes; a key that occurs twice is refused.

    Links are followed: caches of downloads are made of them.
    """
    existing_file(path, "a JSON object")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{path}: got more than {limit:,} bytes; expected at most that. Get the file again")
    return parse_object(content, path)


def parse_object(content: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in these bytes of a file."""
    try:
        value = json.loads(content.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: got no sound JSON ({error}); expected an object. Get the file again"
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: got a JSON {type(value).__name__}; expected an object. Get the file again")
    return value


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object_pairs_hook for json.loads that refuses a key that occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice in an object")
    return found
