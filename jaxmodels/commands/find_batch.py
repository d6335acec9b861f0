"""jaxmodels find-batch: the largest batch whose training step fits the device, by compiled memory first, then by a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxmodels.analysis import nonfinite
from jaxmodels.console import Console
from jaxmodels.experiment import Experiment
from jaxmodels.options import Options
from jaxmodels.parallel.mesh import batch_ways
from jaxmodels.planning.lowering import lower
from jaxmodels.runs import experiment_file
from jaxmodels.state import abstract_state
from jaxmodels.training import runner

USED = 0.92  # of the memory: the rest is for the allocator's gaps and what comes beside a step
USED_OF_CPU = 0.7  # where libraries take more than XLA counts: 1.4 times as much for a step of digits_cnn.py that counts 3.6 GiB
GROUP = "/sys/fs/cgroup/memory.max"  # what a container may have
TRIES = 8  # programs that are compiled at most


def find_batch(
    experiment: str | Path | experiment_file.File,
    *,
    knob: str = "batch",
    memory: float = 0.0,
    options: Options | None = None,
    console: Console | None = None,
    **knobs: Any,
) -> dict[str, Any]:
    """{"batch", "bytes", "limit", "examples", "tried": [{"batch", "bytes"}]} of an experiment's file; bytes of one device.

    knob: the file's knob that is the batch. memory: GiB of a device; 0 asks the device, and of CPUs the
        system what is free.
    examples: in one pass over the data, rounded up to the file's batch. Raises ValueError where not even the
    least batch fits, or the knob is not there or not the batch.
    """
    if memory < 0:
        raise ValueError(f"--memory {memory:g}: wanted GiB above 0, or 0 for what the device has")
    options, console = options or Options(), console or Console(quiet=True)
    file = experiment_file.load(experiment)
    names = {f.name: f.type for f in dataclasses.fields(file.config)}
    if knob not in names:
        raise ValueError(f"--knob {knob}: {file.path} has no such knob; it has {', '.join(names)}")

    def of(n):
        return file.build(experiment_file.make_config(file, {**knobs, knob: n}))

    first: int = getattr(experiment_file.make_config(file, knobs), knob)
    built = of(first)
    if (
        isinstance(first, bool)
        or not isinstance(first, int)
        or of(2 * first).train.batch == built.train.batch
    ):
        raise ValueError(
            f"--knob {knob}: with another {knob} the batch is still {built.train.batch}; wanted the knob that it is"
        )
    mesh = runner.check(built, options)
    share = USED_OF_CPU if mesh.devices.flat[0].platform == "cpu" else USED
    limit = memory * 2**30 or available(mesh.devices.flat[0], mesh.size)
    unit = batch_ways(mesh) * options.accumulate
    tried: dict[int, int | None] = {}  # None: it cannot be had at all

    def bytes_of(n: int) -> int | None:
        if n not in tried:
            with console.busy(f"compiling a step of {n:,}"):
                tried[n] = _bytes(of, n, options)
            size = tried[n]
            console.say(f"{n:>12,}  {'cannot be had' if size is None else nonfinite.in_bytes(size)}")
        return tried[n]

    console.say(f"{'batch':>12}  memory of a device, of {nonfinite.in_bytes(limit)}", "dim")
    fit = _largest(bytes_of, first, unit, limit * share)
    while fit and not _steps(of(fit), options, console):
        tried[fit] = None
        fit = max(
            (n for n, size in tried.items() if size is not None and n < fit),
            default=fit * 3 // 4 // unit * unit,
        )
    if not fit:
        least = nonfinite.in_bytes(min((size for size in tried.values() if size is not None), default=0))
        raise ValueError(
            f"no batch fits into {nonfinite.in_bytes(limit)}: the least that was tried takes {least}; shard the state "
            "(--mesh fsdp=N), compute activations again (--remat full), or take a smaller model"
        )
    return {
        "batch": fit,
        "bytes": bytes_of(fit),
        "limit": limit,
        "examples": built.train.steps * built.train.batch,
        "tried": [{"batch": n, "bytes": size} for n, size in sorted(tried.items())],
    }


def _largest(bytes_of: Callable[[int], int | None], first: int, unit: int, limit: float) -> int:
    """The largest multiple of unit that fits, to a few percent: memory is nearly linear in the batch. 0 where none does."""
    low, high = 0, 0  # what fits, and what does not; 0 is not known
    points: dict[int, int] = {}
    n = max(unit, first // unit * unit)
    for _ in range(TRIES):
        size = bytes_of(n)
        if size is not None:
            points[n] = size
        low, high = (n, high) if size is not None and size <= limit else (low, n)
        n = min(_guess(points, low, high, limit), 8 * low or n) // unit * unit
        if n < unit or n - low < 0.03 * low:
            break
    return low


def _guess(points: dict[int, int], low: int, high: int, limit: float) -> int:
    """A batch between the two, by the line through the two largest known ones where there are some."""
    middle = (low + high) // 2 if high else 2 * low
    if len(points) < 2:
        return middle
    (a, x), (b, y) = sorted(points.items())[-2:]
    n = int(0.99 * (a + (limit - x) * (b - a) / (y - x))) if y > x else middle
    return n if low < n and (not high or n < high) else middle


def _bytes(of: Callable[[int], Experiment], n: int, options: Options) -> int | None:
    """What the compiled step of n examples takes of a device; None where the data or the compiler cannot have it."""
    try:
        built = of(n)
        mesh = runner.check(built, options)
        abstract, shardings = abstract_state(built, mesh, options.offload)
        memory = lower(built, options.__dict__, mesh, abstract, shardings).compile().memory_analysis()
    except ValueError:
        return None
    except jax.errors.JaxRuntimeError as error:
        if not nonfinite.is_out_of_memory(error):
            raise
        return None
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(kept + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes)


def _steps(built: Experiment, options: Options, console: Console) -> bool:
    """Whether two steps can be made."""
    try:
        with console.busy(f"two steps of {built.train.batch:,}"):
            short = dataclasses.replace(built, steps=2, evals={}, best=None)
            runner.run(short, dataclasses.replace(options, steps_per_dispatch=1))
    except MemoryError:
        return False
    return True


def available(device: Any, count: int = 1) -> float:
    """Bytes of a device's memory; of a CPU what the system has free, shared by `count` simulated ones."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    said = {file: Path(file).read_text() for file in ("/proc/meminfo", GROUP) if Path(file).exists()}
    lines = said.get("/proc/meminfo", "").splitlines()
    found = [float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    if said.get(GROUP, "max").strip() != "max":
        found.append(float(said[GROUP]))
    if not found:
        raise ValueError("the system does not say how much memory is free; give it with --memory GIB")
    return min(found) / count
