"""Files of a sweep's members before and while they train, and of the loops that they share.

SWEEP/members/NAME/knobs.json      its swept knobs
SWEEP/members/NAME/data.json       the fingerprints of its data
SWEEP/members/NAME/learned.json    what it has learned from that data, as in a run's folder
SWEEP/together/N/members.json      the members of a loop
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxmodels.runs import checksummed_json, fingerprints, identity
from jaxmodels.runs.files import write_text

DATA = "data.json"


class Member(NamedTuple):
    """One setting of the knobs. knobs: the swept ones. data: the fingerprints of its data, where known."""

    name: str
    knobs: dict[str, Any]
    config: Any
    data: Mapping[str, Any] = MappingProxyType({})


class ProgramShape(NamedTuple):
    """size: members of a program; k: steps of a dispatch."""

    size: int
    k: int


def claim(folder: Path, members: Sequence[Member], shape: ProgramShape | None) -> None:
    """Writes the members of the loop SWEEP/together/N, their knobs and data. shape: None while unknown."""
    for member in members:
        own = folder.parents[1] / "members" / member.name
        own.mkdir(parents=True, exist_ok=True)
        write_text(own / "knobs.json", json.dumps(member.knobs, default=str))
        if member.data:
            checksummed_json.write(own / DATA, {"data": dict(member.data)})
    checksummed_json.write(folder / "members.json", {"members": [m.name for m in members], "how": shape})


def data_of(folder: Path) -> dict[str, Any]:
    """The fingerprints in SWEEP/members/NAME/data.json; {} without that file."""
    path = folder / DATA
    return fingerprints.stored(checksummed_json.read(path).get("data")) if os.path.lexists(path) else {}


def run_of(folder: Path) -> str | None:
    """The id of the checkpoints of the loop SWEEP/together/N."""
    sweep = folder.parents[1]
    return f"{identity.read(sweep)}/{folder.name}" if (sweep / identity.RUN).exists() else None
