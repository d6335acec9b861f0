"""Which mesh, rematerialization and number of micro-batches fit a machine and are fastest.

An analytic model of a step of layers ranks all choices; the partitioner and the target's compiler then
confirm the best few. The batch stays as it is, since it decides what is learned: micro-batches change how
many of its examples a device holds at a time.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.parallel import axes
from jaxmodels.planning import interconnect, targets
from jaxmodels.planning.roofline import REACHED, forecast
from jaxmodels.planning.targets import Target

REMAT = ("none", "dots", "full")
ACCUMULATE = (1, 2, 4, 8, 16, 32)
CONFIRMED = 3  # choices that are compiled, and twice as many where none of them fits
# Axes of a mesh; the last lies on the nearest devices.
ORDER = (axes.DATA, axes.PIPELINE, axes.FSDP, axes.EXPERT, axes.CONTEXT, axes.TENSOR)
INSIDE = ORDER[3:] + ORDER[1:2]  # what the model must be able to split
MOST = 16  # size of each of these: a larger one leaves too little to each device
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
    """What the analytic model predicts for a choice."""

    choice: Choice
    step_s: float
    bytes: float  # of a device
    network_s: float  # overlapped by products or not
    bound: str


class Row(NamedTuple):
    """A line of the result. why: the reason for its rank."""

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
    """{"best": plan or None, "rows": compiled choices, then the best others, "considered": number}.

    surveys: by rematerialization policy, see survey.py. ask(choice): the facts, see lowering.py.
    """
    estimates = [estimate(choice, surveys[choice.remat], target) for choice in choices(target, surveys)]
    if not estimates:
        batch = next(iter(surveys.values()))["batch"]
        multiple = -(-batch // target.devices) * target.devices
        raise ValueError(
            f"plan --search: got a batch of {batch}; expected one that divides over a part of "
            f"{target.devices} devices. Set the batch to {multiple}, or plan for fewer devices"
        )
    limit = ROOM * target.memory if target.memory else math.inf
    fitting = [e for e in estimates if e.bytes <= limit]
    fitting.sort(key=lambda e: (e.step_s, e.choice.accumulate, e.network_s))
    others = sorted((e for e in estimates if e.bytes > limit), key=lambda e: e.bytes)
    best, rows = _confirm(fitting or others[:1], limit, target, ask)
    for e in [*fitting, *others]:
        if len(rows) >= 3 * CONFIRMED:
            break
        if any((row.mesh, row.remat) == (e.choice.text, e.choice.remat) for row in rows):
            continue
        if e.bytes <= limit:
            why = f"slower by the estimate, bound by {e.bound}"
        else:
            why = "too large by the estimate"
        rows.append(_row(e, e.step_s, e.bytes, None, why))
    return {"best": best, "rows": [row._asdict() for row in rows], "considered": len(estimates)}


def _confirm(
    candidates: list[Estimate], limit: float, target: Target, ask: Callable[[Choice], dict[str, Any]]
) -> tuple[dict[str, Any] | None, list[Row]]:
    """(plan of the fastest that fits, or None; the compiled choices). candidates: the best first."""
    rows: list[Row] = []
    best, best_row = None, 0
    least = (math.inf, 0.0)  # seconds, and of equal ones bytes
    excess = 1.0  # the most memory that a compiled choice took, as a multiple of its estimate
    while candidates and len(rows) < (CONFIRMED if best else 2 * CONFIRMED):
        likely = [e for e in candidates if excess * e.bytes <= limit]
        if best and not likely:
            break
        candidate = likely[0] if likely else min(candidates, key=lambda e: e.bytes)
        choice = candidate.choice
        facts = ask(choice)
        predicted = forecast(facts, target)
        used = predicted.get("device_bytes", {}).get("used")
        excess = max(excess, (used or 0) / candidate.bytes)
        step_s = predicted["step_s"] if predicted["step_s"] is not None else candidate.step_s
        fits = predicted["fits"] is not False and "error" not in facts.get("memory", {})
        if fits:  # more micro-batches are never faster, so they are for what does not fit
            alike = (choice.mesh, choice.remat)
            candidates = [e for e in candidates if (e.choice.mesh, e.choice.remat) != alike]
        else:
            candidates = [e for e in candidates if e is not candidate]
        if fits and (step_s, used or 0.0) < least:
            plan = {"machine": target.describe(), "forecast": predicted, "choice": choice._asdict()}
            best, best_row, least = {**facts, **plan}, len(rows), (step_s, used or 0.0)
        why = f"bound by {predicted['bound']}" if predicted["step_s"] is not None else "compiled"
        mfu = predicted.get("mfu")
        rows.append(_row(candidate, predicted["step_s"], used, mfu, why if fits else "does not fit"))
    if best:
        rows[best_row] = rows[best_row]._replace(why=f"chosen, {rows[best_row].why}")
    return best, rows


def _row(e: Estimate, step_s: float | None, used: float | None, mfu: float | None, why: str) -> Row:
    return Row(e.choice.text, e.choice.remat, e.choice.accumulate, step_s, used, mfu, why)


def choices(target: Target, surveys: dict[str, dict[str, Any]]) -> Iterator[Choice]:
    """All ways over data and fsdp, and over what the model can split, into which the batch divides."""
    n = target.devices
    survey = next(iter(surveys.values()))
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    sizes_inside = []
    for axis in INSIDE:
        _, must_divide = survey["splits"].get(axis, (0, 1))
        sizes_inside.append([d for d in divisors if d <= MOST and must_divide % d == 0])
    for fsdp, *inside in itertools.product(divisors, *sizes_inside):
        if n % (fsdp * math.prod(inside)):
            continue
        sizes = {axes.FSDP: fsdp, **dict(zip(INSIDE, inside, strict=True))}
        sizes[axes.DATA] = n // math.prod(sizes.values())
        if sizes[axes.DATA] % target.slices:
            continue
        mesh = tuple((axis, sizes[axis]) for axis in ORDER if sizes[axis] > 1) or ((axes.DATA, 1),)
        rows = math.prod(sizes[axis] for axis in axes.BATCH)
        for remat, accumulate in itertools.product(surveys, ACCUMULATE):
            if survey["batch"] % (rows * accumulate) == 0:
                yield Choice(mesh, remat, accumulate)


def estimate(choice: Choice, survey: dict[str, Any], target: Target) -> Estimate:
    """The analytic model: equal layers; gathered parameters and summed gradients are in 16 bits.

    A device holds its part of the state, of the gradients and of the saved activations, and two gathered
    layers. Over fsdp each micro-batch, of a pipeline's too, gathers each layer twice and scatters its
    gradient; gradients are summed over the axes whose devices have the same parameters and other tokens.
    Between products lie, in each layer: over tensor four sums of its input, as in arXiv:1909.08053; over
    context keys and values, as many as queries, gathered twice, and their gradients scattered; over expert
    the tokens of all its devices gathered and their sums scattered, twice; over pipeline a micro-batch handed
    on. Full rematerialization gathers each of these once more. A stage of a pipeline computes in every turn,
    also in those without a part of the batch.
    """
    sizes = dict(choice.mesh)

    def size(axis):
        return sizes.get(axis, 1)

    data, fsdp, expert, stages, context, tensor = (
        size(axis) for axis in (*axes.BATCH, axes.PIPELINE, axes.CONTEXT, axes.TENSOR)
    )
    count = survey["state"]["parameters"]["count"]
    state = sum(part["bytes"] for part in survey["state"].values())
    gradients = survey["state"]["parameters"]["bytes"]
    hardware_flops = sum(survey["flops"]["hardware"].values())

    def split_share(axis):  # of the parameters, which the axis splits
        return survey["splits"].get(axis, (0, 1))[0] / count

    def held_share(axis):  # of the parameters, on one device of the axis
        return split_share(axis) / size(axis) + 1 - split_share(axis)

    held = held_share(axes.EXPERT) * held_share(axes.PIPELINE) / tensor  # of the parameters, but for fsdp
    rows, again = data * fsdp * expert, choice.remat == "full"
    micro = axes.micro_batches(survey["batch"] // choice.accumulate, stages, rows) if stages > 1 else 1
    turns = (micro + stages - 1) * choice.accumulate
    busy = 1 - axes.bubble(stages, micro)
    inputs = survey["input_bytes"]  # of layers, which every device of a tensor axis holds in full
    tokens = data * fsdp * context * (1 if split_share(axes.EXPERT) else expert)  # expert gathers its tokens
    saved = (inputs + (survey["kept_bytes"] - inputs) / tensor) / (tokens * stages * choice.accumulate * busy)
    kept = (state + gradients) * held / fsdp + saved
    gathered = 2 * 2 * count / survey["layers"] / tensor * held_share(axes.EXPERT)
    device, share = target.device, target.device.devices
    if not device.peak:
        return Estimate(choice, hardware_flops, kept + gathered, 0.0, "compute")
    peak = device.peak["bfloat16"] / share * REACHED
    compute = hardware_flops / (target.devices * peak * busy)
    memory = (2 * (state + gradients) / fsdp + 3 * 2 * count * turns) * held / (device.bandwidth / share)

    def other_share(axis):  # of the devices of an axis, all but one
        return (size(axis) - 1) / size(axis)

    layer_inputs = inputs / (rows * context * stages * busy)  # of a device's layers and tokens
    reduced = 2 * 2 * count * turns / fsdp
    unsplit = 1 - split_share(axes.EXPERT)
    overlapped_bytes = {
        axes.FSDP: (2 * 2 * count + gradients) * turns * held * other_share(axes.FSDP),
        axes.DATA: reduced * held * other_share(axes.DATA),
        axes.EXPERT: reduced * unsplit * held_share(axes.PIPELINE) / tensor * other_share(axes.EXPERT),
        axes.CONTEXT: reduced * held * other_share(axes.CONTEXT),
    }
    between_bytes = {
        axes.TENSOR: layer_inputs * 2 * (4 + again) * other_share(axes.TENSOR),
        axes.CONTEXT: layer_inputs * 2 * (2 + again) * (context - 1) / tensor,
        axes.EXPERT: layer_inputs * (4 + again) * (expert - 1),
        axes.PIPELINE: layer_inputs * 2 * stages / survey["layers"],
    }

    def seconds(bytes_of):
        return sum(n / _rate(target.name, choice.mesh, axis) for axis, n in bytes_of.items() if axis in sizes)

    overlapped, between = seconds(overlapped_bytes), seconds(between_bytes)
    terms = {"compute": compute, "memory": memory, "network": overlapped + between}
    step_s = max(compute, memory, overlapped) + between
    bound = max(terms, key=lambda name: terms[name])
    return Estimate(choice, step_s, kept + gathered, overlapped + between, bound)


@functools.cache
def _rate(name: str, mesh: tuple[tuple[str, int], ...], axis: str) -> float:
    coordinates = _coordinates(name, mesh)
    return interconnect.link_of_axes(targets.target(name), coordinates, dict(mesh), (axis,)).rate


@functools.lru_cache(1)
def _coordinates(name: str, mesh: tuple[tuple[str, int], ...]) -> np.ndarray:
    return interconnect.device_coordinates(targets.target(name), None, dict(mesh))
