"""jaxmodels plan: memory, speed and cost of training an experiment on a machine that is not here."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxmodels.console import Console

if TYPE_CHECKING:
    from jaxmodels.planning.client import Client
    from jaxmodels.planning.search import Choice
    from jaxmodels.planning.targets import Target
    from jaxmodels.runs.experiment_file import File


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """The machine, and how it is used."""

    on: str = ""
    """The machine: v5p-512, v5p:8x8x8, 2xv5p-256, h200-256 or cpu:8.
    Numbers count chips; Google's own names of v4, v5p and tpu7x slices count two cores to a chip."""
    mesh: str = ""
    """Devices by axis, as in data=2,fsdp=256; by default all of them on fsdp."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of parameters and activations inside the model."""
    remat: Literal["model", "none", "dots", "offload", "full"] = "model"
    """What the backward pass rematerializes, as for train."""
    accumulate: int = 1
    """Micro-batches that a batch is split into, computed one after another."""
    compile: Literal["on", "off"] = "on"
    """Whether the target's compiler measures the memory; off is quicker."""
    search: bool = False
    """Find the mesh, the micro-batches and the rematerialization that fit and are fastest."""


def plan(
    experiment: str | Path | File,
    *,
    on: str,
    mesh: str = PlanOptions.mesh,
    precision: str = PlanOptions.precision,
    remat: str = PlanOptions.remat,
    accumulate: int = PlanOptions.accumulate,
    compile: str = PlanOptions.compile,
    search: bool = PlanOptions.search,
    console: Console | None = None,
    **knobs: Any,
) -> dict[str, Any]:
    """The plan of an experiment's file on a machine: "v5p-512" (chips), "v5p:8x8x8", "h200-256", "cpu:8", …

    No array of the model is ever allocated. Facts and forecast are in one dict of JSON's types.
    mesh: by default fsdp over all devices.
    compile: "off" leaves out the memory that only the target's compiler knows.
    search: mesh, rematerialization and micro-batches are chosen.
    knobs: the file's.
    """
    from jaxmodels.planning.client import Client
    from jaxmodels.planning.roofline import forecast

    machine = check(on, accumulate)
    request = make_request(experiment, machine, knobs, mesh, precision, remat, accumulate, compile)
    with Client(machine, console or Console(quiet=True)) as client:
        if search:
            return _search(experiment, machine, request, client)
        facts = client.ask(request)
    return {**facts, "machine": machine.describe(), "forecast": forecast(facts, machine)}


def _search(
    experiment: str | Path | File, machine: Target, request: dict[str, Any], client: Client
) -> dict[str, Any]:
    """The best plan that was found, and under "search" the plans that it was compared with."""
    from jaxmodels.planning.search import REMAT, search
    from jaxmodels.runs import experiment_file

    file = experiment_file.load(experiment)
    surveys = {
        remat: client.ask({**request, "survey": True, "accumulate": 1, "remat": remat}, f"remat {remat}: ")
        for remat in REMAT
    }
    if surveys["none"]["flops"] == surveys["full"]["flops"]:  # no stack of blocks
        surveys = {"model": surveys["none"]}
    for survey in surveys.values():  # with full rematerialization only the inputs of the layers are kept
        survey["input_bytes"] = min(s["kept_bytes"] for s in surveys.values())

    def ask(choice: Choice) -> dict[str, Any]:
        about = f"{choice.text}, remat {choice.remat}, {choice.accumulate} micro-batches: "
        options = {"mesh": choice.text, "remat": choice.remat, "accumulate": choice.accumulate}
        return client.ask({**request, **options}, about)

    compared = search(machine, surveys, ask)
    best = compared.pop("best")
    if best is None:
        return {"target": machine.name, "machine": machine.describe(), "search": compared}
    return {**best, "search": compared, "command": _train_command(file, request, best)}


def _train_command(file: File, request: dict[str, Any], best: dict[str, Any]) -> str:
    """The command that trains by the best plan."""
    from jaxmodels.runs import experiment_file
    from jaxmodels.runs.knob_types import words

    defaults, choice = experiment_file.knobs_of(file.config()), best["choice"]
    options = []
    if request["knobs"] != defaults:
        options.append(shlex.join(words(request["knobs"], defaults, file.config)))
    options.append(f"--mesh {','.join(f'{axis}={size}' for axis, size in best['mesh'].items())}")
    options.append(f"--precision {request['precision']}")
    if choice["remat"] != "model":
        options.append(f"--remat {choice['remat']}")
    if choice["accumulate"] > 1:
        options.append(f"--accumulate {choice['accumulate']}")
    return " ".join(["jaxmodels train", str(file.path), *options])


def check(on: str, accumulate: int) -> Target:
    """The machine of this name; raises ValueError where there is none."""
    from jaxmodels.planning.targets import COUNTING, target

    if not on:
        raise ValueError(
            "plan: got no --on; expected a machine, as in --on v5p-512, h200-256 or cpu:8. Name one; "
            f"{COUNTING}"
        )
    if accumulate < 1:
        raise ValueError(
            f"plan: got --accumulate {accumulate}; expected at least 1, the number of micro-batches. Give 1 "
            "or more"
        )
    return target(on)


def make_request(
    experiment: str | Path | File,
    machine: Target,
    knobs: dict[str, Any],
    mesh: str,
    precision: str,
    remat: str,
    accumulate: int,
    compile: str,
) -> dict[str, Any]:
    """What the process that measures is asked; the knobs are checked here."""
    from jaxmodels.runs import experiment_file

    file = experiment_file.load(experiment)
    return {
        "file": str(file.path),
        "knobs": experiment_file.knobs_of(experiment_file.make_config(file, knobs)),
        "on": machine.name,
        "mesh": mesh,
        "precision": precision,
        "remat": remat,
        "accumulate": accumulate,
        "compile": compile == "on",
    }
