"""learned.json in a run's folder: what the run has learned from its data (see data/learned.py), sealed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmodels.runs import sealed
from jaxmodels.runs.files import TEXT_LIMIT

NAME = "learned.json"


def read_learned(folder: Path) -> dict[str, Any]:
    """The values by name; {} where the run has learned nothing. Raises Damaged where a bit of them has changed."""
    path = Path(folder) / NAME
    return sealed.read(path).get("values", {}) if os.path.lexists(path) else {}


def write_learned(folder: Path, values: Mapping[str, Any]) -> None:
    """Writes the values; raises ValueError where they are too many to keep."""
    if (size := len(json.dumps(values))) > TEXT_LIMIT - 1000:
        largest = max(values, key=lambda name: len(json.dumps(values[name])))
        raise ValueError(
            f"learned(): got {size:,} bytes, of which {largest!r} has most; expected at most {TEXT_LIMIT:,} of names, words "
            "and numbers. Keep large arrays in files of the experiment's own, and learn which"
        )
    sealed.write(Path(folder) / NAME, {"values": dict(values)})
