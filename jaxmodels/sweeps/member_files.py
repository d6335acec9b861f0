"""What a sweep's folder says of its members before and while they train, and of the loops that they share.

SWEEP/members/NAME/knobs.json      its swept knobs
SWEEP/members/NAME/data.json       the fingerprints of its data
SWEEP/members/NAME/learned.json    what it has learned from that data, as in a run's folder
SWEEP/together/N/members.json      whose loop this is
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
    """One setting of the knobs. knobs: those that are swept. data: the fingerprints of its data, where they are known."""

    name: str
    knobs: dict[str, Any]
    config: Any
    data: Mapping[str, Any] = MappingProxyType({})


class How(NamedTuple):
    """size: members of a program; k: steps of a dispatch."""

    size: int
    k: int


def claim(folder: Path, members: Sequence[Member], how: How | None) -> None:
    """Notes on the disk that SWEEP/together/N is these members' loop, their knobs and data; how may not be known yet."""
    for member in members:
        of = folder.parents[1] / "members" / member.name
        of.mkdir(parents=True, exist_ok=True)
        write_text(of / "knobs.json", json.dumps(member.knobs, default=str))
        if member.data:
            checksummed_json.write(of / DATA, {"data": dict(member.data)})
    checksummed_json.write(folder / "members.json", {"members": [m.name for m in members], "how": how})


def data_of(folder: Path) -> dict[str, Any]:
    """The fingerprints that SWEEP/members/NAME/data.json holds; {} where there is none."""
    path = folder / DATA
    return fingerprints.stored(checksummed_json.read(path).get("data")) if os.path.lexists(path) else {}


def run_of(folder: Path) -> str | None:
    """The id that the checkpoints of the loop SWEEP/together/N carry."""
    swept = folder.parents[1]
    return f"{identity.read(swept)}/{folder.name}" if (swept / identity.RUN).exists() else None
