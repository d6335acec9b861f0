"""Names of files and folders from any text: no way out, nothing a shell interprets, and no two alike."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

LENGTH = 120  # characters; file systems take 255 bytes, and suffixes follow
UNSAFE = re.compile(r"[^A-Za-z0-9@%+=,._-]")


def safe_name(text: str, *, exact: bool = False) -> str:
    """The text as the name of a file, that a shell takes unquoted; as it is where it is one already.

    Where characters had to be replaced or left out, six digits of the text's sha256 follow, so that no two
    texts share a name. exact: they follow in any case.
    """
    name = UNSAFE.sub("_", text.strip())[:LENGTH]
    if name[:1] in ("", ".", "-", "~"):
        name = f"_{name}"
    if name == text and not exact:
        return name
    return f"{name}-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"


def of_knobs(knobs: Mapping[str, Any], *, prefix: Iterable[str] = ()) -> str:
    """prefix-knob=value-knob=value, safe: lr=0.1-widths=8,8."""
    parts = [f"{name}={_said(value)}" for name, value in knobs.items()]
    ambiguous = any("=" in str(value) for value in knobs.values())  # a value that reads like two knobs
    return safe_name("-".join([*prefix, *parts]), exact=ambiguous)


def _said(value: Any) -> str:
    return ",".join(map(_said, value)) if isinstance(value, tuple | list) else str(value)
