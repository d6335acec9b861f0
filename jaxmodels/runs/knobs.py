"""What a run's knobs.json says, checked: its knobs, and the options that change the result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from jaxmodels.runs.files import BadFile, read_json


class SavedKnobs(NamedTuple):
    """The knobs of a run by name, and the options, of which precision is always there."""

    knobs: dict[str, Any]
    options: dict[str, Any]


def read_knobs(folder: str | os.PathLike[str]) -> SavedKnobs:
    """Those of a run's folder; raises BadFile where they are not what a run writes."""
    path = Path(folder) / "knobs.json"
    found = read_json(path)
    for name in SavedKnobs._fields:
        if not isinstance(found.get(name), dict):
            raise BadFile(
                f"{path}: got {name} that are {_said(found.get(name))}; expected a JSON object. Restore the "
                "file from a copy"
            )
    if not isinstance(found["options"].get("precision"), str):
        raise BadFile(
            f"{path}: got a precision that is {_said(found['options'].get('precision'))}; expected float32 "
            "or bfloat16. Restore the file from a copy"
        )
    return SavedKnobs(found["knobs"], found["options"])


def _said(x: Any) -> str:
    return "absent" if x is None else f"a {type(x).__name__}"
