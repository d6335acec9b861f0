"""Which mesh, rematerialisation and number of micro-batches fit a machine and are fastest.

An analytic model of a step of layers ranks all choices; the partitioner and the target's compiler then confirm the best few.
What is learned, the batch with it, stays as it is: an example's share of a device is what micro-batches change.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxmodels.planning import links
from jaxmodels.planning.predict import REACHED, predict
from jaxmodels.planning.targets import Target

REMAT = ("none", "dots", "full")
ACCUMULATE = (1, 2, 4, 8, 16, 32)
CONFIRMED = 3  # choices that are compiled
TENSOR = 16  # ways at most: more leave too little to each device
ROOM = 0.9  # of a device's memory that the estimate may fill


class Choice(NamedTuple):
    """One way to use the machine; remat is "model" where it makes no difference."""

    mesh: tuple[tuple[str, int], ...]
    remat: str
    accumulate: int

    @property
    def text(self) -> str:
        """The mesh as the command line has it."""
        return ",".join(f"{axis}={n}" for axis, n in self.mesh)


class Estimate(NamedTuple):
    """What the analytic model says of a choice."""

    choice: Choice
    step_s: float
    bytes: float  # of a device
    network_s: float  # hidden behind products or not
    bound: str


class Row(NamedTuple):
    """A line of the result. why: what became of it."""

    mesh: str
    remat: str
    accumulate: int
    step_s: float | None
    bytes: float | None
    mfu: float | None
    why: str


def search(target: Target, surveys: dict[str, dict[str, Any]], ask: Callable[[Choice], dict[str, Any]]) -> dict[str, Any]:
    """{"best": plan or None, "rows": the choices that were compiled, then the best of those that were not}.

    surveys: by rematerialisation, see survey.py. ask(choice): the facts, see measure.py.
    """
    estimates = [estimate(choice, surveys[choice.remat], target) for choice in choices(target, surveys)]
    if not estimates:
        batch = next(iter(surveys.values()))["batch"]
        raise ValueError(
            f"a batch of {batch} does not divide over {target.devices} devices in any way; wanted a multiple of a part of "
            f"them: set the batch to {-(-batch // target.devices) * target.devices}, or plan for fewer devices"
        )
    limit = ROOM * target.memory if target.memory else math.inf
    fitting = sorted((e for e in estimates if e.bytes <= limit), key=lambda e: (e.step_s, e.choice.accumulate, e.network_s))
    others = sorted((e for e in estimates if e.bytes > limit), key=lambda e: e.bytes)
    rows, best, fastest = [], None, math.inf
    for one in [*_different(fitting), *(others[:1] if not fitting else [])][:CONFIRMED]:
        facts = ask(one.choice)
        forecast = predict(facts, target)
        used = forecast.get("device_bytes", {}).get("used")
        step = forecast["step_s"] if forecast["step_s"] is not None else one.step_s
        fits = forecast["fits"] is not False and "error" not in facts.get("memory", {})
        if fits and step < fastest:
            best, fastest = (
                {**facts, "machine": target.describe(), "forecast": forecast, "choice": one.choice._asdict()},
                step,
            )
        why = f"bound by {forecast['bound']}" if forecast["step_s"] is not None else "compiled"
        rows.append(_row(one, forecast["step_s"], used, forecast.get("mfu"), why if fits else "does not fit"))
    rows = [
        row._replace(why=f"chosen, {row.why}") if best and row.mesh == _mesh(best) and _same(row, best) else row
        for row in rows
    ]
    tried = {(row.mesh, row.remat, row.accumulate) for row in rows}
    for one in [*fitting, *others]:
        if len(rows) >= 3 * CONFIRMED:
            break
        key = (one.choice.text, one.choice.remat, one.choice.accumulate)
        if key in tried or any(row.mesh == key[0] and row.remat == key[1] for row in rows):
            continue
        lost = f"slower by the estimate, bound by {one.bound}" if one.bytes <= limit else "too large by the estimate"
        rows.append(_row(one, one.step_s, one.bytes, None, lost))
    return {"best": best, "rows": [row._asdict() for row in rows], "considered": len(estimates)}


def _row(one: Estimate, step: float | None, used: float | None, mfu: float | None, why: str) -> Row:
    return Row(one.choice.text, one.choice.remat, one.choice.accumulate, step, used, mfu, why)


def _mesh(plan: dict[str, Any]) -> str:
    return ",".join(f"{axis}={n}" for axis, n in plan["mesh"].items())


def _same(row: Row, plan: dict[str, Any]) -> bool:
    return (row.remat, row.accumulate) == (plan["choice"]["remat"], plan["choice"]["accumulate"])


def _different(ranked: list[Estimate]) -> Iterator[Estimate]:
    """The best of each mesh and rematerialisation: fewer micro-batches, if they fit, are never slower here."""
    seen = set()
    for one in ranked:
        key = (one.choice.mesh, one.choice.remat)
        if key not in seen:
            seen.add(key)
            yield one


def choices(target: Target, surveys: dict[str, dict[str, Any]]) -> Iterator[Choice]:
    """All ways over data, fsdp and, where rules name it, tensor, into which the batch divides."""
    n = target.devices
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    for (remat, known), fsdp, accumulate in itertools.product(surveys.items(), divisors, ACCUMULATE):
        for tensor in [d for d in divisors if d <= TENSOR and "tensor" in known["rules"]] or [1]:
            if n % (fsdp * tensor):
                continue
            data = n // fsdp // tensor
            if known["batch"] % (data * fsdp * accumulate) or data % target.slices:
                continue
            sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
            mesh = tuple((axis, size) for axis, size in sizes.items() if size > 1) or (("data", 1),)
            yield Choice(mesh, remat, accumulate)


def estimate(choice: Choice, known: dict[str, Any], target: Target) -> Estimate:
    """The analytic model: equal layers, parameters in 16 bits when they are gathered, gradients in the parameters' type.

    A device holds its part of the state, of the gradients and of what the backward pass needs, and two gathered layers.
    Over fsdp each layer is gathered twice for every micro-batch and its gradient scattered once; over data gradients are
    reduced; over tensor the input of each layer is reduced four times, as in arXiv:1909.08053, once more where it is all
    computed again.
    """
    sizes = dict(choice.mesh)
    data, fsdp, tensor = (sizes.get(axis, 1) for axis in ("data", "fsdp", "tensor"))
    count, state = known["state"]["parameters"]["count"], sum(part["bytes"] for part in known["state"].values())
    gradients = known["state"]["parameters"]["bytes"]
    inputs = known["input_bytes"]  # of layers, which every device of a tensor axis keeps whole
    kept = (inputs + (known["kept_bytes"] - inputs) / tensor) / (data * fsdp * choice.accumulate)
    held = (state + gradients) / (fsdp * tensor) + kept
    gathered = 2 * 2 * count / known["layers"] / tensor
    device, share = target.device, target.device.devices
    if not device.peak:
        return Estimate(choice, sum(known["flops"]["hardware"].values()), held + gathered, 0.0, "compute")
    peak = device.peak["bfloat16"] / share * REACHED
    compute = sum(known["flops"]["hardware"].values()) / target.devices / peak
    memory = (2 * (state + gradients) / (fsdp * tensor) + 3 * 2 * count * choice.accumulate / tensor) / (
        device.bandwidth / share
    )
    where = links.places(target, None, sizes)
    rate = lambda axis: links.road(target, where, sizes, (axis,)).rate if axis in sizes else math.inf  # noqa: E731
    moved = {
        "fsdp": (2 * 2 * count * choice.accumulate + gradients) * (fsdp - 1) / fsdp / tensor,
        "data": 2 * gradients * (data - 1) / data / fsdp / tensor,
        "tensor": inputs * 2 * (5 if choice.remat == "full" else 4) * (tensor - 1) / tensor / (data * fsdp),
    }
    hidden, between = moved["fsdp"] / rate("fsdp") + moved["data"] / rate("data"), moved["tensor"] / rate("tensor")
    terms = {"compute": compute, "memory": memory, "network": hidden + between}
    step = max(compute, memory, hidden) + between
    return Estimate(choice, step, held + gathered, hidden + between, max(terms, key=lambda name: terms[name]))
