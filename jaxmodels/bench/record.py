"""A record of the benchmark: one JSON file, with the machine, the versions and the results of each case."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmodels.bench.suite import VERSION
from jaxmodels.runs.files import read_json

Record = dict[str, Any]


def read(path: str | Path) -> Record:
    """The record of a file; a ValueError where it is none, or of another version of the suite."""
    found = read_json(Path(path))
    if not isinstance(found, Mapping) or not isinstance(found.get("results"), list) or "suite" not in found:
        raise ValueError(f"{path}: got another JSON file; expected one that `jaxmodels bench --json` wrote")
    if found["suite"] != VERSION:
        raise ValueError(
            f"{path}: got version {found['suite']!r} of the suite; expected {VERSION}, as numbers of two "
            "suites do not compare. Measure again"
        )
    for n, result in enumerate(found["results"]):
        times = result.get("round_medians_s") if isinstance(result, Mapping) else None
        if (
            not isinstance(times, list)
            or not times
            or not all(isinstance(t, int | float) and math.isfinite(t) and t > 0 for t in times)
            or not all(isinstance(result.get(key), str) for key in ("case", "size", "program", "precision"))
        ):
            raise ValueError(f"{path}, result {n + 1}: got no times of rounds; expected some. Measure again")
    return dict(found)


def title(result: Mapping[str, Any]) -> str:
    """A result's name: the case, with its size where that is not the literature's."""
    size = "" if result["size"] == "full" else f" ({result['size']})"
    return f"{result['case']}{size} {result['program']}"


def key(result: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two results must have in common to be compared."""
    return tuple(result.get(name) for name in ("case", "size", "program", "precision"))


def machine_name(record: Mapping[str, Any]) -> str:
    """The devices of a record, in words."""
    devices = record.get("devices") or {}
    return f"{devices.get('count', 1)} x {devices.get('kind', 'unknown')}"
