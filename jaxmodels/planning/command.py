"""jaxmodels plan: what training an experiment would take on a machine that is not here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxmodels import loading
from jaxmodels.console import Console
from jaxmodels.planning import search as searching
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
    search: bool = False,
    console: Console | None = None,
    **knobs: Any,
) -> dict[str, Any]:
    """The plan of an experiment's file on a machine such as "v5p-512" (chips), "v5p:8x8x8", "h200-256" or "cpu:8".

    Nothing of the model is ever allocated. mesh: by default fsdp over everything. compile: "off" leaves out the memory that
    only the target's compiler knows. search: mesh, micro-batches and the knob `remat` are chosen. knobs: the file's. Facts
    and forecast in one dict of JSON's types.
    """
    machine = check(on, accumulate)
    request = make_request(experiment, machine, knobs, mesh, precision, accumulate, compile)
    with Worker(machine, console or Console(quiet=True)) as worker:
        if search:
            return _search(experiment, machine, request, worker)
        facts = worker.ask(request)
    return {**facts, "machine": machine.describe(), "forecast": predict(facts, machine, accumulate)}


def _search(experiment: str | Path, machine: Target, request: dict[str, Any], worker: Worker) -> dict[str, Any]:
    """The best plan that was found, and "search", what was compared with it; mesh, micro-batches and `remat` are chosen."""
    file = loading.load(experiment)
    knob = searching.KNOB in request["knobs"]

    def asked(remat: str, **more: Any) -> dict[str, Any]:
        knobs = request["knobs"] | ({searching.KNOB: remat} if knob else {})
        loading.make_config(file, knobs)
        return {**request, "knobs": knobs, **more}

    remats = searching.REMAT if knob else ("",)
    surveys = {r: worker.ask(asked(r, survey=True, accumulate=1), f"remat {r}: " if r else "") for r in remats}
    for known in surveys.values():  # with all computed again, the inputs of the layers are what is kept
        known["input_bytes"] = min(s["kept_bytes"] for s in surveys.values())

    def ask(choice: searching.Choice) -> dict[str, Any]:
        about = f"{choice.text}, {f'remat {choice.remat}, ' if knob else ''}{choice.accumulate} micro-batches: "
        return worker.ask(asked(choice.remat, mesh=choice.text, accumulate=choice.accumulate), about)

    found = searching.search(machine, surveys, ask)
    best = found.pop("best")
    if best is None:
        return {"target": machine.name, "machine": machine.describe(), "search": found}
    given = loading.knobs_of(file.config())
    knobs = request["knobs"] | ({searching.KNOB: best["choice"]["remat"]} if knob else {})
    changed = [f"--{k.replace('_', '-')} {v}" for k, v in knobs.items() if v != given[k]]
    accumulated = best["choice"]["accumulate"]
    options = [f"--mesh {','.join(f'{k}={v}' for k, v in best['mesh'].items())}", f"--precision {request['precision']}"]
    options += [f"--accumulate {accumulated}"] if accumulated > 1 else []
    return {**best, "search": found, "command": " ".join(["jaxmodels train", str(experiment), *changed, *options])}


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
