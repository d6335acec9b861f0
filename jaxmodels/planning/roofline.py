"""From facts to a forecast: time of a step by the roofline, memory that fits or not, and what the whole run costs.

The roofline (doi:10.1145/1498765.1498785) has three ceilings: products, at that part of the vendor's peak
which well-tuned programs reach, memory and links, at the vendor's figures. Under them lies a floor: a step
takes at least as long as the launches of its products and exchanges, which is what bounds small models.
Exchanges over the axes data and fsdp go on while products are computed; those over other axes lie between
products that wait for them, and add to the time.
"""

from __future__ import annotations

import math
from typing import Any

from jaxmodels.parallel import axes
from jaxmodels.planning.targets import Target

# Part of the vendor's peak that products reach; chosen from four published runs on TPUs, see
# benchmarks/plan_accuracy.py.
REACHED = 0.65
HIDDEN = {axes.DATA, axes.FSDP}
# Seconds of the shortest kernel with its launch: 20 kernels of 2.9 µs in a CUDA graph took 3.4 µs each
# (NVIDIA, "Getting Started with CUDA Graphs", 2019, V100). For want of a published figure it stands for TPUs
# too.
LAUNCH = 3.4e-6


def predict(facts: dict[str, Any], target: Target) -> dict[str, Any]:
    """The forecast; "step_s" is None for simulated devices, of which no speed is known."""
    return {**_sizes(facts, target), **_speed(facts, target)}


def device_flops(facts: dict[str, Any], target: Target) -> dict[str, float]:
    """Of one device, by type: as partitioned, or evenly where there are grouped products, which CPUs compute densely.

    With the turns of a pipeline in which a stage has nothing of the batch: it computes then too.
    """
    if facts["flops"]["grouped"]:
        return {
            kind: n / target.devices / (1 - bubble(facts)) for kind, n in facts["flops"]["hardware"].items()
        }
    return facts["work"]["flops"]


def bubble(facts: dict[str, Any]) -> float:
    """The part of its turns in which a stage of the pipeline has nothing of the batch (GPipe's, arXiv:1811.06965)."""
    stages, rows = (
        facts["mesh"].get(axes.PIPELINE, 1),
        math.prod(facts["mesh"].get(axis, 1) for axis in axes.BATCH),
    )
    return axes.bubble(stages, axes.micro_batches(facts["batch"] // facts["accumulate"], stages, rows))


def exchange_s(collective: dict[str, Any]) -> float:
    """Seconds of one kind of exchange: all its times together."""
    crowd = max(1.0, collective["side"] / 4) if collective["kind"] == "all-to-all" else 1.0
    return crowd * collective["bytes"] / collective["rate"]


def _speed(facts: dict[str, Any], target: Target) -> dict[str, Any]:
    device, share = target.device, target.device.devices
    if not device.peak:
        return {"step_s": None}
    compute = sum(
        n / (device.peak[_known(kind)] / share * REACHED) for kind, n in device_flops(facts, target).items()
    )
    parts = {name: part["device"] for name, part in facts["state"].items()}
    moved = facts["work"]["traffic"] + 2 * (
        2 * parts["parameters"] + parts["optimizer"]
    )  # read and written by the update
    memory = moved / (device.bandwidth / share)
    hidden = sum(exchange_s(c) for c in facts["collectives"] if set(c["axes"]) <= HIDDEN)
    between = sum(exchange_s(c) for c in facts["collectives"] if not set(c["axes"]) <= HIDDEN)
    latency = max(1, facts["work"]["kernels"]) * LAUNCH
    terms = {"compute": compute, "memory": memory, "network": hidden + between, "latency": latency}
    step = max(max(compute, memory, hidden) + between, latency)
    model = sum(facts["flops"]["model"].values())
    per_s = {f"{name}_per_s": n / step for name, n in facts["examples"].items()}
    return {
        "step_s": step,
        "terms_s": terms,
        "waiting_s": between,  # the part of the network's time that no product hides
        "bound": max(terms, key=lambda name: terms[name]),
        "mfu": model / (step * target.chips * device.peak["bfloat16"]),
        **per_s,
        "bubble": bubble(facts),
        "run_s": step * facts["steps"],
        "device_hours": step * facts["steps"] * target.chips / 3600,
        "input_bytes_per_s": facts["batch_bytes"] / step,
    }


def _known(kind: str) -> str:
    return (
        kind if kind in ("bfloat16", "float32", "int8") else "float8" if kind.startswith("f8") else "bfloat16"
    )


def _sizes(facts: dict[str, Any], target: Target) -> dict[str, Any]:
    parts, memory = facts["state"], facts.get("memory", {})
    found: dict[str, Any] = {
        "parameters": parts["parameters"]["count"],
        "model_flops": sum(facts["flops"]["model"].values()),
        "hardware_flops": sum(facts["flops"]["hardware"].values()),
        "checkpoint_bytes": sum(part["bytes"] for part in parts.values()),
        "fits": None,
    }
    if "temp" in memory:
        gradients = min(memory["temp"], parts["parameters"]["device"])
        used = (
            memory["argument"]
            + memory["output"]
            - memory["alias"]
            + memory["temp"]
            + memory["generated_code"]
        )
        found["device_bytes"] = {
            "parameters": parts["parameters"]["device"],
            "optimizer": parts["optimizer"]["device"],
            "batch and rest": memory["argument"]
            - parts["parameters"]["device"]
            - parts["optimizer"]["device"],
            "gradients": gradients,
            "activations and temporaries": memory["temp"] - gradients,
            "program": memory["generated_code"] + memory["output"] - memory["alias"],
            "used": used,
            "there": target.memory,
        }
        found["fits"] = used <= target.memory if target.memory else None
    elif "error" in memory:
        found["fits"] = False if "RESOURCE_EXHAUSTED" in memory["error"] else None
    return found
