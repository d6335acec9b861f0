"""Which mesh, rematerialisation and number of micro-batches fit a machine and are fastest.

An analytic model of a step of layers ranks all choices; the partitioner and the target's compiler then
confirm the best few. What is learned, the batch with it, stays as it is: an example's share of a device is
what micro-batches change.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.parallel import axes
from jaxmodels.planning import interconnect
from jaxmodels.planning.roofline import REACHED, predict
from jaxmodels.planning.targets import Target
from jaxmodels.planning.targets import target as named

REMAT = ("none", "dots", "full")
ACCUMULATE = (1, 2, 4, 8, 16, 32)
CONFIRMED = 3  # choices that are compiled, and twice as many where none of them fits
ORDER = (
    axes.DATA,
    axes.PIPELINE,
    axes.FSDP,
    axes.EXPERT,
    axes.CONTEXT,
    axes.TENSOR,
)  # the last on the nearest devices
INSIDE = ORDER[3:] + ORDER[1:2]  # what the model must be able to split
MOST = 16  # ways of each of these: more leave too little to each device
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


def search(
    target: Target, surveys: dict[str, dict[str, Any]], ask: Callable[[Choice], dict[str, Any]]
) -> dict[str, Any]:
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
    fitting = sorted(
        (e for e in estimates if e.bytes <= limit), key=lambda e: (e.step_s, e.choice.accumulate, e.network_s)
    )
    others = sorted((e for e in estimates if e.bytes > limit), key=lambda e: e.bytes)
    rows: list[Row] = []
    best, least, more = None, (math.inf, 0.0), 1.0  # seconds, and of equal ones bytes
    left = fitting or others[:1]
    while left and len(rows) < (CONFIRMED if best else 2 * CONFIRMED):
        likely = [
            e for e in left if more * e.bytes <= limit
        ]  # where it takes as much more than estimated as those before
        if best and not likely:
            break
        one = likely[0] if likely else min(left, key=lambda e: e.bytes)
        facts = ask(one.choice)
        forecast = predict(facts, target)
        used = forecast.get("device_bytes", {}).get("used")
        more = max(more, (used or 0) / one.bytes)
        step = forecast["step_s"] if forecast["step_s"] is not None else one.step_s
        fits = forecast["fits"] is not False and "error" not in facts.get("memory", {})
        # More micro-batches are never faster here: they are left only where fewer do not fit.
        left = [e for e in left if e is not one and not (fits and _kind(e) == _kind(one))]
        if fits and (step, used or 0.0) < least:
            best, least = (
                {**facts, "machine": target.describe(), "forecast": forecast, "choice": one.choice._asdict()},
                (step, used or 0.0),
            )
        why = f"bound by {forecast['bound']}" if forecast["step_s"] is not None else "compiled"
        rows.append(_row(one, forecast["step_s"], used, forecast.get("mfu"), why if fits else "does not fit"))
    rows = [
        row._replace(why=f"chosen, {row.why}")
        if best and row.mesh == _mesh(best) and _same(row, best)
        else row
        for row in rows
    ]
    tried = {(row.mesh, row.remat, row.accumulate) for row in rows}
    for one in [*fitting, *others]:
        if len(rows) >= 3 * CONFIRMED:
            break
        key = (one.choice.text, one.choice.remat, one.choice.accumulate)
        if key in tried or any(row.mesh == key[0] and row.remat == key[1] for row in rows):
            continue
        lost = (
            f"slower by the estimate, bound by {one.bound}"
            if one.bytes <= limit
            else "too large by the estimate"
        )
        rows.append(_row(one, one.step_s, one.bytes, None, lost))
    return {"best": best, "rows": [row._asdict() for row in rows], "considered": len(estimates)}


def _row(one: Estimate, step: float | None, used: float | None, mfu: float | None, why: str) -> Row:
    return Row(one.choice.text, one.choice.remat, one.choice.accumulate, step, used, mfu, why)


def _mesh(plan: dict[str, Any]) -> str:
    return ",".join(f"{axis}={n}" for axis, n in plan["mesh"].items())


def _same(row: Row, plan: dict[str, Any]) -> bool:
    return (row.remat, row.accumulate) == (plan["choice"]["remat"], plan["choice"]["accumulate"])


def _kind(one: Estimate) -> tuple[Any, str]:
    return one.choice.mesh, one.choice.remat


def choices(target: Target, surveys: dict[str, dict[str, Any]]) -> Iterator[Choice]:
    """All ways over data and fsdp, and over what the model can split, into which the batch divides."""
    n = target.devices
    known = next(iter(surveys.values()))
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    ways = [
        [d for d in divisors if d <= MOST and known["splits"].get(axis, (0, 1))[1] % d == 0]
        for axis in INSIDE
    ]
    for fsdp, *inside in itertools.product(divisors, *ways):
        if n % (fsdp * math.prod(inside)):
            continue
        sizes = {axes.FSDP: fsdp, **dict(zip(INSIDE, inside, strict=True))}
        sizes[axes.DATA] = n // math.prod(sizes.values())
        if sizes[axes.DATA] % target.slices:
            continue
        mesh = tuple((axis, sizes[axis]) for axis in ORDER if sizes[axis] > 1) or ((axes.DATA, 1),)
        rows = math.prod(sizes[axis] for axis in axes.BATCH)
        for remat, accumulate in itertools.product(surveys, ACCUMULATE):
            if known["batch"] % (rows * accumulate) == 0:
                yield Choice(mesh, remat, accumulate)


def estimate(choice: Choice, known: dict[str, Any], target: Target) -> Estimate:
    """The analytic model: equal layers, parameters in 16 bits when they are gathered, gradients when they are summed.

    A device holds its part of the state, of the gradients and of what the backward pass needs, and two
    gathered layers. For every micro-batch, of a pipeline's too, over fsdp each layer is gathered twice and
    its gradient scattered; gradients are summed over the axes whose devices have the same parameters and
    other tokens. Between products are, in each layer: over tensor four sums of its input, as in
    arXiv:1909.08053; over context keys and values, as many as queries, gathered twice, and their gradients
    scattered; over expert the tokens of all its devices gathered and their sums scattered, twice; over
    pipeline a micro-batch handed on. One more of each gathering where all is computed again. A stage of a
    pipeline computes in every turn, also where what it has is none of the batch.
    """
    sizes = dict(choice.mesh)

    def axis(name):
        return sizes.get(name, 1)

    data, fsdp, expert, stages, context, tensor = (
        axis(name) for name in (*axes.BATCH, axes.PIPELINE, axes.CONTEXT, axes.TENSOR)
    )
    count, state = (
        known["state"]["parameters"]["count"],
        sum(part["bytes"] for part in known["state"].values()),
    )
    gradients = known["state"]["parameters"]["bytes"]

    def of(name):
        return known["splits"].get(name, (0, 1))[0] / count

    def part(name):
        return of(name) / axis(name) + 1 - of(name)

    whole = part(axes.EXPERT) * part(axes.PIPELINE) / tensor  # of the parameters, but for fsdp
    rows, again = data * fsdp * expert, choice.remat == "full"
    micro = axes.micro_batches(known["batch"] // choice.accumulate, stages, rows) if stages > 1 else 1
    turns = (micro + stages - 1) * choice.accumulate
    busy = 1 - axes.bubble(stages, micro)
    inputs = known["input_bytes"]  # of layers, which every device of a tensor axis keeps whole
    tokens = data * fsdp * context * (1 if of(axes.EXPERT) else expert)  # expert's devices gather theirs
    kept = (inputs + (known["kept_bytes"] - inputs) / tensor) / (tokens * stages * choice.accumulate * busy)
    held = (state + gradients) * whole / fsdp + kept
    gathered = 2 * 2 * count / known["layers"] / tensor * part(axes.EXPERT)
    device, share = target.device, target.device.devices
    if not device.peak:
        return Estimate(choice, sum(known["flops"]["hardware"].values()), held + gathered, 0.0, "compute")
    peak = device.peak["bfloat16"] / share * REACHED
    compute = sum(known["flops"]["hardware"].values()) / (target.devices * peak * busy)
    memory = (2 * (state + gradients) / fsdp + 3 * 2 * count * turns) * whole / (device.bandwidth / share)

    def rate(name):
        return _rate(target.name, choice.mesh, name)

    def other(name):
        return (axis(name) - 1) / axis(name)

    each = inputs / (rows * context * stages * busy)  # of a device's layers and tokens
    reduced = 2 * 2 * count * turns / fsdp
    hidden_bytes = {
        axes.FSDP: (2 * 2 * count + gradients) * turns * whole * other(axes.FSDP),
        axes.DATA: reduced * whole * other(axes.DATA),
        axes.EXPERT: reduced * (1 - of(axes.EXPERT)) * part(axes.PIPELINE) / tensor * other(axes.EXPERT),
        axes.CONTEXT: reduced * whole * other(axes.CONTEXT),
    }
    between_bytes = {
        axes.TENSOR: each * 2 * (4 + again) * other(axes.TENSOR),
        axes.CONTEXT: each * 2 * (2 + again) * (context - 1) / tensor,
        axes.EXPERT: each * (4 + again) * (expert - 1),
        axes.PIPELINE: each * 2 * stages / known["layers"],
    }

    def seconds(moved):
        return sum(n / rate(name) for name, n in moved.items() if name in sizes)

    hidden, between = seconds(hidden_bytes), seconds(between_bytes)
    terms = {"compute": compute, "memory": memory, "network": hidden + between}
    step = max(compute, memory, hidden) + between
    return Estimate(choice, step, held + gathered, hidden + between, max(terms, key=lambda name: terms[name]))


@functools.cache
def _rate(name: str, mesh: tuple[tuple[str, int], ...], axis: str) -> float:
    return interconnect.road(named(name), _places(name, mesh), dict(mesh), (axis,)).rate


@functools.lru_cache(1)
def _places(name: str, mesh: tuple[tuple[str, int], ...]) -> np.ndarray:
    return interconnect.places(named(name), None, dict(mesh))
