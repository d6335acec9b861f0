"""jaxmodels plan: what training an experiment would take on a machine that is not here."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from jaxmodels.console import Console
from jaxmodels.planning import search as searching
from jaxmodels.planning.client import Worker
from jaxmodels.planning.roofline import predict
from jaxmodels.planning.targets import COUNTING, Target, target
from jaxmodels.runs import experiment_file
from jaxmodels.runs.knob_types import words


def plan(
    experiment: str | Path | experiment_file.File,
    *,
    on: str,
    mesh: str = "",
    precision: str = "bfloat16",
    remat: str = "model",
    accumulate: int = 1,
    compile: str = "on",
    search: bool = False,
    console: Console | None = None,
    **knobs: Any,
) -> dict[str, Any]:
    """The plan of an experiment's file on a machine such as "v5p-512" (chips), "v5p:8x8x8", "h200-256" or "cpu:8".

    Nothing of the model is ever allocated. mesh: by default fsdp over everything. compile: "off" leaves out
    the memory that only the target's compiler knows. search: mesh, rematerialisation and micro-batches are
    chosen. knobs: the file's. Facts and forecast in one dict of JSON's types.
    """
    machine = check(on, accumulate)
    request = make_request(experiment, machine, knobs, mesh, precision, remat, accumulate, compile)
    with Worker(machine, console or Console(quiet=True)) as worker:
        if search:
            return _search(experiment, machine, request, worker)
        facts = worker.ask(request)
    return {**facts, "machine": machine.describe(), "forecast": predict(facts, machine)}


def _search(
    experiment: str | Path | experiment_file.File, machine: Target, request: dict[str, Any], worker: Worker
) -> dict[str, Any]:
    """The best plan that was found, and "search", what was compared with it."""
    file = experiment_file.load(experiment)
    surveys = {
        remat: worker.ask({**request, "survey": True, "accumulate": 1, "remat": remat}, f"remat {remat}: ")
        for remat in searching.REMAT
    }
    if surveys["none"]["flops"] == surveys["full"]["flops"]:  # no stack of blocks
        surveys = {"model": surveys["none"]}
    for known in surveys.values():  # with all computed again, the inputs of the layers are what is kept
        known["input_bytes"] = min(s["kept_bytes"] for s in surveys.values())

    def ask(choice: searching.Choice) -> dict[str, Any]:
        about = f"{choice.text}, remat {choice.remat}, {choice.accumulate} micro-batches: "
        return worker.ask(
            {**request, "mesh": choice.text, "remat": choice.remat, "accumulate": choice.accumulate}, about
        )

    found = searching.search(machine, surveys, ask)
    best = found.pop("best")
    if best is None:
        return {"target": machine.name, "machine": machine.describe(), "search": found}
    given, chosen = experiment_file.knobs_of(file.config()), best["choice"]
    options = [shlex.join(words(request["knobs"], given, file.config))] if request["knobs"] != given else []
    options += [
        f"--mesh {','.join(f'{k}={v}' for k, v in best['mesh'].items())}",
        f"--precision {request['precision']}",
    ]
    options += [f"--remat {chosen['remat']}"] if chosen["remat"] != "model" else []
    options += [f"--accumulate {chosen['accumulate']}"] if chosen["accumulate"] > 1 else []
    return {**best, "search": found, "command": " ".join(["jaxmodels train", str(file.path), *options])}


def check(on: str, accumulate: int) -> Target:
    """The machine; raises where it is none."""
    if not on:
        raise ValueError(
            f"--on is absent: name the machine to plan for, as in --on v5p-512, h200-256 or cpu:8; {COUNTING}"
        )
    if accumulate < 1:
        raise ValueError(f"--accumulate {accumulate}: it must be at least 1, the number of micro-batches")
    return target(on)


def make_request(
    experiment: str | Path | experiment_file.File,
    machine: Target,
    knobs: dict[str, Any],
    mesh: str,
    precision: str,
    remat: str,
    accumulate: int,
    compile: str,
) -> dict[str, Any]:
    """What the process that measures is asked; the knobs are checked here."""
    file = experiment_file.load(experiment)
    knobs = experiment_file.knobs_of(experiment_file.make_config(file, knobs))
    return {
        "file": str(file.path),
        "knobs": knobs,
        "on": machine.name,
        "mesh": mesh,
        "precision": precision,
        "remat": remat,
        "accumulate": accumulate,
        "compile": compile == "on",
    }
