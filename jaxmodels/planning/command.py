"""jaxmodels plan: what training an experiment would take on a machine that is not here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxmodels import loading
from jaxmodels.console import Console
from jaxmodels.planning.predict import predict
from jaxmodels.planning.targets import COUNTING, Target, target
from jaxmodels.planning.worker import Worker


def plan(
    experiment: str | Path,
    *,
    on: str,
    mesh: str = "",
    precision: str = "bfloat16",
    accumulate: int = 1,
    compile: str = "on",
    console: Console | None = None,
    **knobs: Any,
) -> dict[str, Any]:
    """The plan of an experiment's file on a machine such as "v5p-512" (chips), "v5p:8x8x8", "h200-256" or "cpu:8".

    Nothing of the model is ever allocated. mesh: by default fsdp over everything. compile: "off" leaves out the memory that
    only the target's compiler knows. knobs: the file's. Facts and forecast in one dict of JSON's types.
    """
    machine = check(on, accumulate)
    with Worker(machine, console or Console(quiet=True)) as worker:
        request = make_request(experiment, machine, knobs, mesh, precision, accumulate, compile)
        facts = worker.ask(request)
    return {**facts, "machine": machine.describe(), "forecast": predict(facts, machine, accumulate)}


def check(on: str, accumulate: int) -> Target:
    """The machine; raises where it is none."""
    if not on:
        raise ValueError(f"--on is absent: name the machine to plan for, as in --on v5p-512, h200-256 or cpu:8; {COUNTING}")
    if accumulate < 1:
        raise ValueError(f"--accumulate {accumulate}: it must be at least 1, the number of micro-batches")
    return target(on)


def make_request(
    experiment: str | Path, machine: Target, knobs: dict[str, Any], mesh: str, precision: str, accumulate: int, compile: str
) -> dict[str, Any]:
    """What the process that measures is asked; the knobs are checked here."""
    file = loading.load(experiment)
    knobs = loading.knobs_of(loading.make_config(file, knobs))
    return {
        "file": str(experiment),
        "knobs": knobs,
        "on": machine.name,
        "mesh": mesh,
        "precision": precision,
        "accumulate": accumulate,
        "compile": compile == "on",
    }
