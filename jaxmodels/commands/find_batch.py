"""jaxmodels find-batch: the largest batch whose training step fits the device.

The memory of compiled steps is compared first; then two steps run with the batch that was found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxmodels.console import Console
from jaxmodels.options import Options

if TYPE_CHECKING:
    from jaxmodels.experiment import Experiment
    from jaxmodels.runs.experiment_file import File

USED = 0.92  # fraction of the memory: the rest is for gaps of the allocator and for what lives beside a step
# On CPUs libraries take more memory than XLA counts: 1.4 times as much for a step of digits_cnn.py that
# counts 3.6 GiB.
USED_OF_CPU = 0.7
GROUP = "/sys/fs/cgroup/memory.max"  # a container's limit
TRIES = 8  # programs that are compiled at most


@dataclass(frozen=True, kw_only=True)
class FindBatchOptions:
    """Which knob is raised, and how far."""

    knob: str = "batch"
    """The file's knob that is the batch."""
    memory: float = 0.0
    """GiB of a device; 0 asks the device, and for CPUs the system how much is free."""


def find_batch(
    experiment: str | Path | File,
    *,
    knob: str = FindBatchOptions.knob,
    memory: float = FindBatchOptions.memory,
    options: Options | None = None,
    console: Console | None = None,
    **knobs: Any,
) -> dict[str, Any]:
    """{"batch", "bytes", "limit", "examples", "tried": [{"batch", "bytes"}]}; bytes are of one device.

    knob: the file's knob that is the batch. memory: GiB of a device; 0 asks the device, and for CPUs the
        system how much is free.
    examples: in one pass over the data, rounded up to the file's batch. Raises ValueError where not even the
    smallest batch fits, or where the knob does not exist or is not the batch.
    """
    from jaxmodels.analysis.memory import in_bytes
    from jaxmodels.parallel.mesh import batch_ways
    from jaxmodels.runs import experiment_file
    from jaxmodels.training.check import check

    if memory < 0:
        raise ValueError(
            f"find-batch: got --memory {memory:g}; expected GiB above 0, or 0 for what the device has. "
            "Change it"
        )
    options, console = options or Options(), console or Console(quiet=True)
    file = experiment_file.load(experiment)
    names = [field.name for field in dataclasses.fields(file.config)]
    if knob not in names:
        raise ValueError(
            f"find-batch: got --knob {knob}, which {file.path} does not have; expected one of "
            f"{', '.join(names)}. Give one"
        )

    def with_batch(n):
        return file.build(experiment_file.make_config(file, {**knobs, knob: n}))

    first: int = getattr(experiment_file.make_config(file, knobs), knob)
    built = with_batch(first)
    is_integer = isinstance(first, int) and not isinstance(first, bool)
    if not is_integer or with_batch(2 * first).train.batch == built.train.batch:
        raise ValueError(
            f"find-batch: got --knob {knob}, with which the batch stays {built.train.batch}; expected the "
            "knob that is the batch. Give that"
        )
    mesh = check(built, options)
    used = USED_OF_CPU if mesh.devices.flat[0].platform == "cpu" else USED
    limit = memory * 2**30 or available(mesh.devices.flat[0], mesh.size)
    unit = batch_ways(mesh) * options.accumulate
    tried: dict[int, int | None] = {}  # None: the data or the compiler does not allow this batch

    def bytes_of(n: int) -> int | None:
        if n not in tried:
            with console.busy(f"compiling a step of {n:,}"):
                tried[n] = _bytes(with_batch, n, options)
            size = tried[n]
            console.say(f"{n:>12,}  {'impossible' if size is None else in_bytes(size)}")
        return tried[n]

    console.say(f"{'batch':>12}  memory of a device, of {in_bytes(limit)}", "dim")
    fit = largest(bytes_of, first, unit, limit * used)
    while fit and not _steps(with_batch(fit), options, console):
        tried[fit] = None
        smaller = [n for n, size in tried.items() if size is not None and n < fit]
        fit = max(smaller, default=fit * 3 // 4 // unit * unit)
    if not fit:
        smallest = min((size for size in tried.values() if size is not None), default=0)
        raise ValueError(
            f"find-batch: got no batch that fits into {in_bytes(limit)}, as the smallest one tried takes "
            f"{in_bytes(smallest)}; expected one. Shard the state (--mesh fsdp=N), rematerialize activations "
            "(--remat full), or use a smaller model"
        )
    return {
        "batch": fit,
        "bytes": bytes_of(fit),
        "limit": limit,
        "examples": built.train.steps * built.train.batch,
        "tried": [{"batch": n, "bytes": size} for n, size in sorted(tried.items())],
    }


def largest(bytes_of: Callable[[int], int | None], first: int, unit: int, limit: float) -> int:
    """The largest multiple of unit that fits, to within a few percent; 0 where none does.

    Memory is nearly linear in the batch.
    """
    low, high = 0, 0  # the largest that fits, and the smallest that does not; 0 is unknown
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
    """A batch between low and high: by the line through the two largest measured ones, else the middle."""
    middle = (low + high) // 2 if high else 2 * low
    if len(points) < 2:
        return middle
    (a, x), (b, y) = sorted(points.items())[-2:]
    n = int(0.99 * (a + (limit - x) * (b - a) / (y - x))) if y > x else middle
    return n if low < n and (not high or n < high) else middle


def _bytes(with_batch: Callable[[int], Experiment], n: int, options: Options) -> int | None:
    """Bytes of a device that the compiled step of n examples takes; None where data or compiler refuse n."""
    import jax

    from jaxmodels.analysis.memory import is_out_of_memory
    from jaxmodels.planning.lowering import lower
    from jaxmodels.state import abstract_state
    from jaxmodels.training.check import check

    try:
        built = with_batch(n)
        mesh = check(built, options)
        abstract, shardings = abstract_state(built, mesh, options.offload)
        lowered = lower(
            built,
            mesh,
            abstract,
            shardings,
            accumulate=options.accumulate,
            precision=options.precision,
            remat=options.remat,
        )
        memory = lowered.compile().memory_analysis()
    except ValueError:
        return None
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(kept + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes)


def _steps(built: Experiment, options: Options, console: Console) -> bool:
    """Whether two steps run."""
    from jaxmodels.training import runner

    try:
        with console.busy(f"two steps of {built.train.batch:,}"):
            short = dataclasses.replace(built, steps=2, evals={}, target=None, best=None)
            runner.run(short, dataclasses.replace(options, steps_per_dispatch=1))
    except MemoryError:
        return False
    return True


def available(device: Any, count: int = 1) -> float:
    """Bytes of a device's memory; a simulated one of `count` has its share of what is free."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    texts = {file: Path(file).read_text() for file in ("/proc/meminfo", GROUP) if Path(file).exists()}
    lines = texts.get("/proc/meminfo", "").splitlines()
    limits = [float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    if texts.get(GROUP, "max").strip() != "max":
        limits.append(float(texts[GROUP]))
    if not limits:
        raise ValueError(
            "got no free memory from the system; expected MemAvailable in /proc/meminfo. Give it with "
            "--memory GIB"
        )
    return min(limits) / count
