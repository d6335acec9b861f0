"""jaxmodels bench: the suite on these devices; bench compare: records beside each other."""

from __future__ import annotations

import difflib
import json as jsonlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxmodels.launch.safe_path import python

if TYPE_CHECKING:
    from jaxmodels.bench.compare import Comparison

LIMIT = 1800  # seconds of a case


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What is measured, and where the record goes."""

    devices: int = 0
    """How many devices to use; 0 is all of them."""
    compile: Literal["jit", "pmap"] = "jit"
    """How the training step is compiled."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of parameters and activations inside the model."""
    size: Literal["auto", "full", "reduced", "tiny"] = "auto"
    """Sizes of the models: full is the literature's. auto is full on accelerators, where it fits into memory,
    and reduced on CPUs."""
    quick: bool = False
    """Few rounds and, with auto, tiny sizes: under three minutes on two cores."""
    json: str = ""
    """A file for the record, which `jaxmodels bench compare` reads."""
    out: str = ""
    """Of compare: an HTML page with a table and a bar chart."""
    tolerance: float = 0.02
    """Of compare: how much slower still counts as the same."""


def bench(
    names: Sequence[str] = (),
    *,
    devices: int = BenchOptions.devices,
    compile: str = BenchOptions.compile,
    precision: str = BenchOptions.precision,
    size: str = BenchOptions.size,
    quick: bool = BenchOptions.quick,
    json: str | Path = BenchOptions.json,
    show: Callable[[dict[str, Any]], object] = lambda case: None,
) -> dict[str, Any]:
    """The record of these cases of the suite, by default all, each measured in a process of its own.

    show(case) is called as each case ends, with its "results", or its "error".
    """
    from jaxmodels.bench.suite import SUITE, VERSION
    from jaxmodels.runs.environment import describe_environment
    from jaxmodels.runs.files import write_json

    for name in names:
        if name not in SUITE:
            close = difflib.get_close_matches(name, SUITE, n=1)
            known = f"did you mean {close[0]}?" if close else f"choose from {', '.join(SUITE)}"
            raise ValueError(f"bench: got {name!r}, which is no case of the suite; {known}")
    if devices < 0:
        raise ValueError(f"--devices: got {devices}; expected 0 for all, or a number of them. Change it")
    wanted = {"devices": devices, "compile": compile, "precision": precision, "size": size, "quick": quick}
    record: dict[str, Any] = {"suite": VERSION, "options": wanted, "devices": {}, "results": [], "errors": {}}
    begun = time.perf_counter()
    for name in names or SUITE:
        case = _case({"name": name, **wanted})
        record["devices"] = case.get("devices") or record["devices"]
        record["results"] += case["results"]
        if "error" in case:
            record["errors"][name] = case["error"]
        show({"name": name, **case})
    record |= {"seconds": time.perf_counter() - begun, "environment": describe_environment()}
    if json:
        write_json(Path(json), record)
    return record


def _case(wanted: dict[str, Any]) -> dict[str, Any]:
    command = [*python("jaxmodels.bench.worker"), jsonlib.dumps(wanted)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment)
    except subprocess.TimeoutExpired:
        return {"results": [], "error": f"took more than {LIMIT} seconds"}
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return {"results": [], "error": f"the process ended with status {done.returncode}: {last[0]}"[:500]}
    return jsonlib.loads(done.stdout.strip().splitlines()[-1])


def bench_compare(
    paths: Sequence[str | Path], *, out: str | Path = BenchOptions.out
) -> tuple[list[str], list[Comparison]]:
    """(names of the records' machines, comparisons with the first). out: an HTML page of it."""
    from jaxmodels.bench.compare import compare
    from jaxmodels.bench.record import machine_name, read
    from jaxmodels.runs.files import write_text

    if len(paths) < 2:
        raise ValueError(
            f"bench compare: got {len(paths)} records; expected two or more. Give the files that "
            "`jaxmodels bench --json` wrote"
        )
    records = [read(path) for path in paths]
    names = [
        f"{Path(path).stem}: {machine_name(record)}" for path, record in zip(paths, records, strict=True)
    ]
    comparisons = compare(records)
    if out:
        from jaxmodels.report.bench_page import bench_page

        write_text(Path(out), bench_page(names, records, comparisons).html())
    return names, comparisons
