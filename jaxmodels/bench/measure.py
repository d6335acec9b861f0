"""One case measured: a dict for each program, whose keys say what each number is of.

A utilisation above 1 cannot be: it is left out, and "refused" says why.
"""

from __future__ import annotations

import statistics
from typing import Any

import jax
from jax.sharding import Mesh

from jaxmodels.analysis.devices import Device
from jaxmodels.analysis.memory import peak_memory
from jaxmodels.bench.energy import Meter
from jaxmodels.bench.peaks import Peaks, datasheet, peaks
from jaxmodels.bench.programs import Program, programs
from jaxmodels.bench.suite import SUITE, Size
from jaxmodels.bench.timing import Effort, input_wait, rounds, summary
from jaxmodels.parallel.compile import Compile

Result = dict[str, Any]


def measure(name: str, size: Size, mesh: Mesh, mode: Compile, precision: str, effort: Effort) -> list[Result]:
    """The results of a case: of its training, and of its inference where it has one."""
    workload = SUITE[name][size]()
    references = peaks(mesh, precision)
    device = mesh.devices.flat[0]
    results = []
    for program in programs(workload, mesh, mode, precision):
        result = _measured(program, references, datasheet(device.device_kind), mesh, effort)
        if program.feed is not None:
            data = workload.experiment(1e-4).train
            result["input_wait_share"] = input_wait(program.feed, data, 2 * effort.seconds)
        results.append({"case": name, "size": size, "compile": mode, "precision": precision, **result})
    return results


def _measured(
    program: Program, references: Peaks, sheet: Device | None, mesh: Mesh, effort: Effort
) -> Result:
    program.run()
    meter = Meter(mesh)
    with meter:
        calls, found = rounds(program.run, {"product": references.product, "copy": references.copy}, effort)
    middles = [statistics.median(one) for one in calls]
    flops = sum(program.flops.values())
    made = program.compiled
    result: Result = {
        "program": program.kind,
        "of": program.about,
        "devices": mesh.size,
        "unit": program.unit,
        "units_per_call": program.units,
        "trace_s": made.trace_s,
        "compile_cold_s": made.cold_s,
        "compile_cached_s": made.cached_s,
        **summary(calls),
        "round_medians_s": middles,
        f"{program.unit}_per_s": program.units / statistics.median(t for one in calls for t in one),
        "model_flops_per_call": flops,
        "least_traffic_bytes_per_call": program.traffic,
        "planned_bytes_per_device": made.planned_bytes,
        "peak_bytes": _peak_bytes(mesh),
        "reference": references.about,
        "refused": {},
    }
    if program.loops:
        result["refused"]["model_flops_per_call"] = (
            f"{program.loops} loops have a number of trips that is not known; their work is counted once"
        )
    put_share(
        result,
        "mfu_of_measured_product",
        [flops / t / p for t, p in zip(middles, found["product"], strict=True)],
    )
    put_share(
        result,
        "bandwidth_of_measured_copy",
        [program.traffic / t / c for t, c in zip(middles, found["copy"], strict=True)],
    )
    if sheet is not None:
        peak = mesh.size * sheet.peak.get(_type(program.flops), sheet.peak["bfloat16"])
        put_share(result, "mfu_of_datasheet", [flops / t / peak for t in middles])
        bandwidth = mesh.size * sheet.bandwidth
        put_share(result, "bandwidth_of_datasheet", [program.traffic / t / bandwidth for t in middles])
    if meter.joules is not None:
        result["joules_per_second"] = meter.joules / meter.seconds
    return result


def put_share(result: Result, name: str, shares: list[float]) -> None:
    """The median over rounds of a share of a peak, or why there is none."""
    share = statistics.median(shares)
    if share > 1:
        result["refused"][name] = (
            f"got {share:.0%} of the peak, which cannot be of memory or products: the arrays fit into a "
            "cache, or the reference was slowed down"
        )
    else:
        result[name] = share


def _type(flops: dict[str, float]) -> str:
    return max(flops, key=lambda kind: flops[kind], default="float32")


def _peak_bytes(mesh: Mesh) -> dict[str, Any]:
    """The most memory in use so far: of the fullest device, or of this process where devices do not tell."""
    told = any((device.memory_stats() or {}).get("peak_bytes_in_use") for device in mesh.local_devices)
    return {"of": "the fullest device" if told else "the process", "bytes": peak_memory()}


def describe(mesh: Mesh) -> dict[str, Any]:
    """The devices of a record."""
    device = mesh.devices.flat[0]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "count": mesh.size,
        "jax": jax.__version__,
    }
