"""A JSON object in a file that anybody may have made: bounded, and each name given once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LIMIT = 16 << 20  # bytes, where nobody says another


def read_object(path: Path, *, limit: int = LIMIT) -> dict[str, Any]:
    """The object in a file of at most `limit` bytes; a name that occurs twice is refused.

    Links are followed: caches of downloads are made of them.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; wanted a JSON object; check the folder")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(
            f"{path}: got more than {limit:,} bytes; expected at most as many. It is not what its name says"
        )
    return parse_object(content, path)


def parse_object(content: bytes, path: Path) -> dict[str, Any]:
    """The object that these bytes of a file are."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name occurs twice")
        return found

    try:
        value = json.loads(content.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds no sound JSON ({error}); get the file again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}; wanted an object; get the file again")
    return value
