"""What can be known of an experiment's step without running it: counts, the partitioned program, the compiler's memory.

Runs in a process of its own (see serve.py), because JAX must be told of the devices before it starts.
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

from jaxmodels import keys, step
from jaxmodels.analysis import flops, hlo
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
from jaxmodels.state import abstract_state, as_dtype, batch_shapes, make_step

SIMULATED = 2048  # devices of a computer's CPU that JAX gives one process


def measure(request: dict[str, Any], say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """The facts of one experiment on one target and mesh.

    request: file, knobs, on, mesh ("" is fsdp over everything), precision, remat, accumulate, compile (False
    leaves the target's compiler out). Every number is JSON's.
    """
    file = experiment_file.load(request["file"])
    experiment = file.build(experiment_file.make_config(file, request["knobs"]))
    machine = target(request["on"])
    text = request["mesh"] or f"fsdp={machine.devices}"
    mesh, sizes = mesh_of(text, machine, jax.devices())
    check_batch(mesh, experiment.train.batch, request["accumulate"], "train")
    say("tracing the step")
    abstract, shardings = abstract_state(experiment, mesh)
    counted = counts(experiment, request, abstract)
    facts: dict[str, Any] = {
        "target": machine.name,
        "mesh": sizes,
        "batch": experiment.train.batch,
        "accumulate": request["accumulate"],
        "steps": experiment.steps,
        "examples": _per_step(experiment),
        "state": sizes_of(abstract),
        "batch_bytes": _batch_bytes(experiment),
        "flops": counted,
    }
    say(f"partitioning it over {machine.devices:,} devices")
    few, B = simulated(sizes, experiment.train.batch)
    with lowered_for("definition"):
        if few == sizes:
            lowered = lower(experiment, request, mesh, abstract, shardings)
        else:
            small = make_mesh(
                ",".join(f"{k}={n}" for k, n in few.items()), jax.devices()[: math.prod(few.values())]
            )
            lowered = lower(experiment, request, small, *abstract_state(experiment, small), B)
    work = hlo.Work(**cached(lowered, "partition", "kernels", lambda: partition(lowered, few)))
    collectives = [hlo.Collective(*c) for c in work.collectives]

    own = machine.device.platform != "cpu" and compilers.missing(machine) is None
    found = compilers.devices(machine) if own else None
    real, _ = mesh_of(text, machine, found) if found else (mesh, sizes)
    where = interconnect.places(machine, np.asarray(real.devices) if found else None, sizes)
    facts["work"] = {
        "flops": work.flops,
        "traffic": work.traffic,
        "loops": work.loops,
        "kernels": work.kernels,
    }
    facts["collectives"] = [
        {**c._asdict(), **interconnect.road(machine, where, sizes, c.axes)._asdict(), "axes": list(c.axes)}
        for c in collectives
    ]
    if request.get("compile", True):
        facts["memory"] = _memory(experiment, request, machine, real, abstract, shardings, say)
    return facts


def mesh_of(text: str, machine: Target, devices: Any) -> tuple[Any, dict[str, int]]:
    """(the mesh, its sizes by axis) of the target's devices; raises where the sizes do not make them up."""
    sizes = axis_sizes(text)
    if math.prod(sizes.values()) != machine.devices:
        product = " x ".join(map(str, sizes.values()))
        raise ValueError(
            f"mesh {text}: {product} is {math.prod(sizes.values())}; {machine.name} has {machine.devices} devices: "
            f"choose sizes whose product is {machine.devices}"
        )
    if next(iter(sizes.values())) % machine.slices:
        raise ValueError(
            f"mesh {text}: its first axis goes over the {machine.slices} slices of {machine.name}; begin with "
            f"data={machine.slices}"
        )
    return make_mesh(text, list(devices)[: machine.devices]), sizes


def simulated(sizes: dict[str, int], B: int) -> tuple[dict[str, int], int]:
    """(sizes of the mesh, examples) of no more devices than JAX simulates.

    Axes over which the examples are split are halved, and the examples with them: what one device does stays
    as it is.
    """
    few = dict(sizes)
    while math.prod(few.values()) > SIMULATED:
        axis = next((a for a in (axes.DATA, axes.FSDP) if few.get(a, 1) % 2 == 0), None)
        if axis is None or B % 2:
            raise ValueError(
                f"{math.prod(sizes.values()):,} devices: up to {SIMULATED:,} are simulated, and more where data or fsdp and "
                f"the batch can be halved often enough; came {sizes} and a batch of {B}: take powers of two"
            )
        few[axis], B = few[axis] // 2, B // 2
    return few, B


def step_of(experiment: Experiment, request: dict[str, Any]) -> Callable:
    """The training step that the request asks for."""
    return make_step(experiment, accumulate=request["accumulate"], precision=request["precision"])


def lower(
    experiment: Experiment, request: dict[str, Any], mesh: Any, abstract: Any, shardings: Any, B: int = 0
) -> Any:
    """The step on this mesh, lowered for abstract arrays; of B examples in place of the batch's, where B is not 0."""
    one = step_of(experiment, request)

    def program(state, _, batch):
        return one(state, split_positions(batch, mesh, leading=0))

    jitted = compile_step(program, "jit", mesh, shardings, leading=0, remat=request["remat"])
    return jitted.lower(abstract, {}, batch_shapes(experiment.train, B))


def counts(experiment: Experiment, request: dict[str, Any], state: Any) -> dict[str, Any]:
    """FLOPs of the whole batch: what the model must do, and what the step does."""
    batch, precision = batch_shapes(experiment.train), as_dtype(request["precision"])
    with lowered_for("definition"), axes.traced(None, request["remat"]):
        whole = flops.count(jax.make_jaxpr(step_of(experiment, request))(state, batch))
    found: dict[str, Any] = {"hardware": whole.by_type(), "loops": whole.loops, "grouped": whole.grouped}
    if experiment.make_step is not None:  # no one loss: what the step does is what there is to do
        return {**found, "model": whole.by_type()}

    def loss(params, extra, batch, key):
        keys_B = keys.per_example(jax.random.fold_in(key, 0), jnp.arange(experiment.train.batch))
        return experiment.task.loss(step.cast_floats(params, precision), extra, batch, keys_B)[0].total

    with lowered_for("definition"):
        forward = jax.make_jaxpr(loss)(state.params, state.extra, batch, state.key)
    trained = len(jax.tree.leaves(state.params))
    active = [i < trained for i in range(len(forward.jaxpr.invars))]
    return {**found, "model": flops.count(forward, active).by_type()}


def sizes_of(abstract: Any) -> dict[str, Any]:
    """Bytes of the parts of the state: of all, and of what one device holds."""

    def sizes(tree: Any) -> dict[str, int]:
        leaves = jax.tree.leaves(tree)
        width = [2 * 4 if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x.dtype.itemsize for x in leaves]
        return {
            "count": sum(math.prod(x.shape) for x in leaves),
            "bytes": sum(math.prod(x.shape) * w for x, w in zip(leaves, width, strict=True)),
            "device": sum(
                math.prod(x.sharding.shard_shape(x.shape)) * w for x, w in zip(leaves, width, strict=True)
            ),
        }

    parts = {
        "parameters": abstract.params,
        "optimizer": abstract.opt_state,
        "extra": (abstract.extra, abstract.averaged),
    }
    return {name: sizes(tree) for name, tree in parts.items()}


def _batch_bytes(experiment: Experiment) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in batch_shapes(experiment.train).values())


def _per_step(experiment: Experiment) -> dict[str, int]:
    """What a step learns from: examples, and the tokens of them where a batch has a weight for each."""
    shapes = {name: shape for name, (shape, _) in experiment.train.spec.items()}
    found = {"examples": experiment.train.batch}
    if len(shapes.get("weight", ())) == 1:
        found["tokens"] = experiment.train.batch * shapes["weight"][0]
    return found


def partition(lowered: Any, sizes: dict[str, int]) -> dict[str, Any]:
    """The work of one device, from the program that the partitioner makes for simulated devices."""
    with tempfile.TemporaryDirectory(prefix="jaxmodels-plan-") as folder:
        kept = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
        jax.config.update(
            "jax_persistent_cache_min_compile_time_secs", 1e9
        )  # what comes from a cache writes no text
        try:
            lowered.compile(
                compiler_options={
                    "xla_dump_to": folder,
                    "xla_dump_hlo_as_text": True,
                    "xla_dump_hlo_pass_re": "spmd-partitioning",
                    "xla_backend_optimization_level": 0,
                    "xla_llvm_disable_expensive_passes": True,  # a program that no cache can hold from elsewhere
                }
            )
        finally:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", kept)
        files = sorted(Path(folder).glob("*after_spmd-partitioning*.txt"))
        if not files:  # one device: there is nothing to partition
            files = sorted(Path(folder).glob("*before_optimizations.txt"))
        return hlo.read(files[-1].read_text(), sizes)._asdict()


def _memory(
    experiment: Experiment,
    request: dict[str, Any],
    machine: Target,
    mesh: Any,
    abstract: Any,
    shardings: Any,
    say: Callable,
) -> dict[str, Any]:
    """Bytes of a device as the target's compiler has them, or, where it is absent, as the CPU's has them."""
    extra = compilers.missing(machine)
    own = machine.device.platform != "cpu" and extra is None
    if own:
        abstract, shardings = abstract_state(experiment, mesh)
    notes = []
    if extra is not None:
        more = (
            f"; for that of the target: pip install 'jaxmodels[{extra}]'"
            if extra
            else ", for which nobody compiles here"
        )
        notes.append(f"memory is an estimate, as XLA lays the program out for CPUs{more}")
    kernels = [machine.device.platform, "cpu"] if own else ["cpu"]
    say(f"compiling it for {machine.name}")
    chosen, version = compilers.options(machine) if own else {}, compilers.version(machine)
    facts: dict[str, Any] = {"compiler": version, "own": own, "notes": notes}
    for kernel in kernels:
        try:
            with lowered_for(kernel):
                lowered = lower(experiment, request, mesh, abstract, shardings)
            return {
                **cached(lowered, machine.name, f"{version} {chosen}", partial(memory_of, lowered, chosen)),
                **facts,
            }
        except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError) as error:
            if kernel == kernels[-1] or "RESOURCE_EXHAUSTED" in str(error):
                return {"error": _short(error), **facts}
            notes.append(
                f"the attention kernel of this target does not compile over several devices ({_short(error)}); "
                "attention is planned in blocks, as on CPUs, and training as it stands would fail there"
            )
    raise AssertionError


def _short(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(" ")]
    named = [line for line in lines if "Error" in line.partition(":")[0] or "RESOURCE_EXHAUSTED" in line]
    return (named or lines or [type(error).__name__])[-1][:300]


def memory_of(lowered: Any, chosen: dict[str, Any]) -> dict[str, Any]:
    """Bytes of a device, as a compiler's memory analysis has them."""
    stats = lowered.compile(compiler_options=chosen).memory_analysis()
    names = ("argument", "output", "alias", "temp", "generated_code")
    return {name: int(getattr(stats, f"{name}_size_in_bytes")) for name in names}
