"""A forecast from facts: time of a step by the roofline, whether memory suffices, and the cost of the run.

The roofline (doi:10.1145/1498765.1498785) has three ceilings: matrix products, at the part of the vendor's
peak that well-tuned programs reach, and memory and links, at the vendor's figures. Under them lies a floor: a
step takes at least as long as the launches of its products and exchanges, which is what bounds small models.
Exchanges over the axes data and fsdp overlap with products; those over other axes lie between products that
wait for them, and add to the time.
"""

from __future__ import annotations

import math
from typing import Any

from jaxmodels.parallel import axes
from jaxmodels.planning.targets import Target

# Part of the vendor's peak that products reach; chosen from four published runs on TPUs, see
# benchmarks/plan_accuracy.py.
REACHED = 0.65
OVERLAPPED = {axes.DATA, axes.FSDP}
# Seconds of the shortest kernel with its launch: 20 kernels of 2.9 µs in a CUDA graph took 3.4 µs each
# (NVIDIA, "Getting Started with CUDA Graphs", 2019, V100). TPUs have no published figure, so it stands for
# them too.
LAUNCH = 3.4e-6


def forecast(facts: dict[str, Any], target: Target) -> dict[str, Any]:
    """Sizes, time and cost; "step_s" is None for simulated devices, whose speed is not known."""
    return {**_sizes(facts, target), **_speed(facts, target)}


def device_flops(facts: dict[str, Any], target: Target) -> dict[str, float]:
    """FLOPs of one device, by type: as partitioned, or an even share where products are grouped.

    CPUs compute grouped products densely, so their partitioned program does not count. An even share includes
    the turns in which a stage of a pipeline computes without a part of the batch.
    """
    if facts["flops"]["grouped"]:
        busy = 1 - bubble(facts)
        return {kind: n / target.devices / busy for kind, n in facts["flops"]["hardware"].items()}
    return facts["work"]["flops"]


def bubble(facts: dict[str, Any]) -> float:
    """The share of turns in which a pipeline's stage has no part of the batch (GPipe, arXiv:1811.06965)."""
    stages = facts["mesh"].get(axes.PIPELINE, 1)
    rows = math.prod(facts["mesh"].get(axis, 1) for axis in axes.BATCH)
    micro_batch = facts["batch"] // facts["accumulate"]
    return axes.bubble(stages, axes.micro_batches(micro_batch, stages, rows))


def exchange_s(collective: dict[str, Any]) -> float:
    """Seconds of one kind of exchange, for all its times together."""
    crowd = max(1.0, collective["side"] / 4) if collective["kind"] == "all-to-all" else 1.0
    return crowd * collective["bytes"] / collective["rate"]


def _speed(facts: dict[str, Any], target: Target) -> dict[str, Any]:
    device, share = target.device, target.device.devices
    if not device.peak:
        return {"step_s": None}
    flops = device_flops(facts, target).items()
    compute = sum(n / (device.peak[_peak_name(kind)] / share * REACHED) for kind, n in flops)
    bytes_of = {name: part["device"] for name, part in facts["state"].items()}
    updated = 2 * (2 * bytes_of["parameters"] + bytes_of["optimizer"])  # read and written by the update
    memory = (facts["work"]["traffic"] + updated) / (device.bandwidth / share)
    overlapped = sum(exchange_s(c) for c in facts["collectives"] if set(c["axes"]) <= OVERLAPPED)
    between = sum(exchange_s(c) for c in facts["collectives"] if not set(c["axes"]) <= OVERLAPPED)
    latency = max(1, facts["work"]["kernels"]) * LAUNCH
    terms = {"compute": compute, "memory": memory, "network": overlapped + between, "latency": latency}
    step = max(max(compute, memory, overlapped) + between, latency)
    model_flops = sum(facts["flops"]["model"].values())
    return {
        "step_s": step,
        "terms_s": terms,
        "waiting_s": between,  # the part of the network's time that products do not hide
        "bound": max(terms, key=lambda name: terms[name]),
        "mfu": model_flops / (step * target.chips * device.peak["bfloat16"]),
        **{f"{name}_per_s": n / step for name, n in facts["examples"].items()},
        "bubble": bubble(facts),
        "run_s": step * facts["steps"],
        "device_hours": step * facts["steps"] * target.chips / 3600,
        "input_bytes_per_s": facts["batch_bytes"] / step,
    }


def _peak_name(kind: str) -> str:
    """The name, in Device.peak, of a type of operands; bfloat16 for unknown ones."""
    if kind in ("bfloat16", "float32", "int8"):
        return kind
    return "float8" if kind.startswith("f8") else "bfloat16"


def _sizes(facts: dict[str, Any], target: Target) -> dict[str, Any]:
    parts, memory = facts["state"], facts.get("memory", {})
    sizes: dict[str, Any] = {
        "parameters": parts["parameters"]["count"],
        "model_flops": sum(facts["flops"]["model"].values()),
        "hardware_flops": sum(facts["flops"]["hardware"].values()),
        "checkpoint_bytes": sum(part["bytes"] for part in parts.values()),
        "fits": None,
    }
    if "temp" in memory:
        parameters, optimizer = parts["parameters"]["device"], parts["optimizer"]["device"]
        gradients = min(memory["temp"], parameters)
        results = memory["output"] - memory["alias"] + memory["generated_code"]
        used = memory["argument"] + memory["temp"] + results
        sizes["device_bytes"] = {
            "parameters": parameters,
            "optimizer": optimizer,
            "batch and rest": memory["argument"] - parameters - optimizer,
            "gradients": gradients,
            "activations and temporaries": memory["temp"] - gradients,
            "program": results,
            "used": used,
            "there": target.memory,
        }
        sizes["fits"] = used <= target.memory if target.memory else None
    elif "error" in memory:
        sizes["fits"] = False if "RESOURCE_EXHAUSTED" in memory["error"] else None
    return sizes
