"""Facts of a step that need no accelerator: FLOPs, the partitioned program, the compiler's memory.

Runs in a process of its own (see server.py), because JAX must know of the devices before it starts.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxmodels.analysis import hlo
from jaxmodels.analysis.step_flops import step_flops
from jaxmodels.experiment import Experiment
from jaxmodels.layers.attention import lowered_for
from jaxmodels.parallel import axes
from jaxmodels.parallel.compile import compile_step
from jaxmodels.parallel.mesh import axis_sizes, check_batch, make_mesh
from jaxmodels.parallel.placement import split_positions
from jaxmodels.planning import compilers, interconnect
from jaxmodels.planning.compile_cache import cached
from jaxmodels.planning.targets import Target, target
from jaxmodels.runs import experiment_file
from jaxmodels.state import abstract_state, batch_shapes, make_step

SIMULATED = 2048  # devices of a computer's CPU that JAX gives one process
PARTITION_OPTIONS: dict[str, Any] = {
    "xla_dump_hlo_as_text": True,
    "xla_dump_hlo_pass_re": "spmd-partitioning",
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,  # so that no cache holds the program from elsewhere
}


def no_progress(text: str) -> None:
    """Tells nobody what is being done."""


def lower_and_analyze(
    request: dict[str, Any], progress: Callable[[str], None] = no_progress
) -> dict[str, Any]:
    """The facts of one experiment on one target and mesh, in types of JSON.

    request: file, knobs, on, mesh ("" is fsdp over everything), precision, remat, accumulate, compile (False
    leaves the target's compiler out).
    """
    file = experiment_file.load(request["file"])
    experiment = file.build(experiment_file.make_config(file, request["knobs"]))
    machine = target(request["on"])
    options = {name: request[name] for name in ("accumulate", "precision", "remat")}
    mesh_text = request["mesh"] or f"fsdp={machine.devices}"
    mesh, sizes = target_mesh(mesh_text, machine, jax.devices())
    check_batch(mesh, experiment.train.batch, request["accumulate"], "train")
    progress("tracing the step")
    abstract, shardings = abstract_state(experiment, mesh)
    facts: dict[str, Any] = {
        "target": machine.name,
        "mesh": sizes,
        "batch": experiment.train.batch,
        "accumulate": request["accumulate"],
        "steps": experiment.steps,
        "examples": _examples_per_step(experiment),
        "state": state_sizes(abstract),
        "batch_bytes": _batch_bytes(experiment),
        "flops": step_flops(experiment, abstract, **options)._asdict(),
    }
    progress(f"partitioning it over {machine.devices:,} devices")
    simulated_sizes, examples = simulated(sizes, experiment.train.batch)
    with lowered_for("definition"):
        if simulated_sizes == sizes:
            lowered = lower(experiment, mesh, abstract, shardings, **options)
        else:
            text = ",".join(f"{axis}={n}" for axis, n in simulated_sizes.items())
            smaller = make_mesh(text, jax.devices()[: math.prod(simulated_sizes.values())])
            state = abstract_state(experiment, smaller)
            lowered = lower(experiment, smaller, *state, **options, examples=examples)
    work = hlo.Work(**cached(lowered, "partition", "kernels", lambda: partition(lowered, simulated_sizes)))
    facts["work"] = {
        "flops": work.flops,
        "traffic": work.traffic,
        "loops": work.loops,
        "kernels": work.kernels,
    }

    has_compiler = machine.device.platform != "cpu" and compilers.missing(machine) is None
    devices = compilers.devices(machine) if has_compiler else None
    own_mesh = target_mesh(mesh_text, machine, devices)[0] if devices else mesh
    laid_out = np.asarray(own_mesh.devices) if devices else None
    coordinates = interconnect.device_coordinates(machine, laid_out, sizes)
    facts["collectives"] = []
    for collective in (hlo.Collective(*fields) for fields in work.collectives):
        link = interconnect.link_of_axes(machine, coordinates, sizes, collective.axes)
        facts["collectives"].append({**collective._asdict(), **link._asdict(), "axes": list(collective.axes)})
    if request.get("compile", True):
        progress(f"compiling it for {machine.name}")
        state = abstract_state(experiment, own_mesh) if has_compiler else (abstract, shardings)
        facts["memory"] = _memory(machine, partial(lower, experiment, own_mesh, *state, **options))
    return facts


def target_mesh(text: str, machine: Target, devices: Any) -> tuple[Mesh, dict[str, int]]:
    """(the mesh, its sizes by axis) over the target's devices; raises where they are more or fewer."""
    sizes = axis_sizes(text)
    if math.prod(sizes.values()) != machine.devices:
        product = " x ".join(map(str, sizes.values()))
        raise ValueError(
            f"mesh {text}: got {product}, which is {math.prod(sizes.values())}; expected the "
            f"{machine.devices} devices of {machine.name}. Choose sizes whose product is {machine.devices}"
        )
    first = next(iter(sizes.values()))
    if first % machine.slices:
        raise ValueError(
            f"mesh {text}: got a first axis of {first}; expected a multiple of the {machine.slices} slices "
            f"of {machine.name}, which it goes over. Begin with data={machine.slices}"
        )
    return make_mesh(text, list(devices)[: machine.devices]), sizes


def simulated(sizes: dict[str, int], examples: int) -> tuple[dict[str, int], int]:
    """(sizes of the mesh, examples) with no more devices than JAX simulates.

    Axes over which the examples are split are halved, and the examples with them, so that the work of one
    device stays the same.
    """
    smaller, left = dict(sizes), examples
    while math.prod(smaller.values()) > SIMULATED:
        axis = next((a for a in (axes.DATA, axes.FSDP) if smaller.get(a, 1) % 2 == 0), None)
        if axis is None or left % 2:
            raise ValueError(
                f"{math.prod(sizes.values()):,} devices: got a mesh of {sizes} and a batch of {examples}; "
                f"expected at most {SIMULATED:,} devices, or data or fsdp and a batch that can be halved "
                "until there are no more. Take powers of two"
            )
        smaller[axis], left = smaller[axis] // 2, left // 2
    return smaller, left


def lower(
    experiment: Experiment,
    mesh: Mesh,
    abstract: Any,
    shardings: Any,
    *,
    accumulate: int,
    precision: str,
    remat: str,
    examples: int = 0,
) -> Any:
    """The step on this mesh, lowered for abstract arrays; examples: of a batch, 0 is the experiment's own."""
    advance = make_step(experiment, accumulate=accumulate, precision=precision)

    def program(state, _, batch):
        return advance(state, split_positions(batch, mesh, leading=0))

    jitted = compile_step(program, "jit", mesh, shardings, leading=0, remat=remat)
    return jitted.lower(abstract, {}, batch_shapes(experiment.train, examples))


def state_sizes(abstract: Any) -> dict[str, Any]:
    """Of the parts of the state: number of values, bytes of all, and bytes on one device."""

    def sizes(tree: Any) -> dict[str, int]:
        count, total, on_device = 0, 0, 0
        for x in jax.tree.leaves(tree):
            width = 2 * 4 if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x.dtype.itemsize
            count += math.prod(x.shape)
            total += math.prod(x.shape) * width
            on_device += math.prod(x.sharding.shard_shape(x.shape)) * width
        return {"count": count, "bytes": total, "device": on_device}

    parts = {
        "parameters": abstract.params,
        "optimizer": abstract.opt_state,
        "extra": (abstract.extra, abstract.averaged),
    }
    return {name: sizes(tree) for name, tree in parts.items()}


def _batch_bytes(experiment: Experiment) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in batch_shapes(experiment.train).values())


def _examples_per_step(experiment: Experiment) -> dict[str, int]:
    """Examples of a step, and their tokens where a batch has a weight for each."""
    shapes = {name: shape for name, (shape, _) in experiment.train.spec.items()}
    counts: dict[str, int] = {"examples": experiment.train.batch}
    if len(shapes.get("weight", ())) == 1:
        counts["tokens"] = experiment.train.batch * shapes["weight"][0]
    return counts


def partition(lowered: jax.stages.Lowered, sizes: dict[str, int]) -> dict[str, Any]:
    """The work of one device, from the program that the partitioner makes for simulated devices."""
    minimum = "jax_persistent_cache_min_compile_time_secs"
    with tempfile.TemporaryDirectory(prefix="jaxmodels-plan-") as folder:
        before = jax.config.values[minimum]
        jax.config.update(minimum, 1e9)  # a program from the cache writes no text
        try:
            lowered.compile(compiler_options={**PARTITION_OPTIONS, "xla_dump_to": folder})
        finally:
            jax.config.update(minimum, before)
        files = sorted(Path(folder).glob("*after_spmd-partitioning*.txt"))
        if not files:  # one device: nothing is partitioned
            files = sorted(Path(folder).glob("*before_optimizations.txt"))
        return hlo.read(files[-1].read_text(), sizes)._asdict()


def _memory(machine: Target, lower_step: Callable[[], jax.stages.Lowered]) -> dict[str, Any]:
    """Bytes of a device by the target's compiler, or, where that is absent, by the CPU's."""
    extra = compilers.missing(machine)
    own = machine.device.platform != "cpu" and extra is None
    notes = []
    if extra is not None:
        install = f"; for that of the target: pip install 'jaxmodels[{extra}]'"
        absent = ", since no compiler of the target runs here"
        notes.append(
            f"memory is an estimate, as XLA lays the program out for CPUs{install if extra else absent}"
        )
    kernels = [machine.device.platform, "cpu"] if own else ["cpu"]
    options, version = compilers.options(machine) if own else {}, compilers.version(kernels[0])
    facts: dict[str, Any] = {"compiler": version, "own": own, "notes": notes}
    for kernel in kernels:
        try:
            with lowered_for(kernel):
                lowered = lower_step()
            compiled = partial(memory_of, lowered, options)
            return {**cached(lowered, machine.name, f"{version} {options}", compiled), **facts}
        except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError) as error:
            if kernel == kernels[-1] or "RESOURCE_EXHAUSTED" in str(error):
                return {"error": _one_line(error), **facts}
            notes.append(
                f"this target's attention kernel does not compile over several devices ({_one_line(error)}); "
                "the plan has attention in blocks, as on CPUs, and training would fail there"
            )
    raise AssertionError


def _one_line(error: BaseException) -> str:
    """The line of a compiler's message that names the error."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(" ")]
    named = [line for line in lines if "Error" in line.partition(":")[0] or "RESOURCE_EXHAUSTED" in line]
    return (named or lines or [type(error).__name__])[-1][:300]


def memory_of(lowered: jax.stages.Lowered, options: dict[str, Any]) -> dict[str, Any]:
    """Bytes of a device, by a compiler's memory analysis."""
    stats = lowered.compile(compiler_options=options).memory_analysis()
    names = ("argument", "output", "alias", "temp", "generated_code")
    return {name: int(getattr(stats, f"{name}_size_in_bytes")) for name in names}
