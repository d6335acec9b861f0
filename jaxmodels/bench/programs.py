"""The programs of a case, compiled for the devices: a training step, a sweep's step, an inference.

Compilation is timed twice: with an empty persistent cache, which the first fills, and from it.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh

from jaxmodels import step
from jaxmodels.analysis import flops
from jaxmodels.analysis.memory import size
from jaxmodels.analysis.step_flops import step_flops
from jaxmodels.bench.suite import Workload
from jaxmodels.layers.attention import lowered_for
from jaxmodels.parallel import rules
from jaxmodels.parallel.compile import PMAP_AXIS, Compile, compile_step, traced_for
from jaxmodels.parallel.placement import batch_sharding, replicated
from jaxmodels.state import as_dtype, batch_shapes, initial, make_step

RATE = 1e-4


class Compiled(NamedTuple):
    """A compiled program and what compiling it took, in seconds; bytes as the compiler laid them out."""

    call: Any
    trace_s: float
    cold_s: float
    cached_s: float
    planned_bytes: int | None


class Program(NamedTuple):
    """What is timed: run() does one call and waits for the device.

    flops: of a call, model FLOPs by type of the operands. traffic: bytes that a call moves at least: each
    argument read, each result written once, and, in generation, the parameters once a token.
    """

    kind: str  # "training", "inference"
    about: str
    run: Callable[[], None]
    unit: str
    units: int
    flops: dict[str, float]
    loops: int  # in the program, with a number of trips that is not known: their FLOPs are counted once
    traffic: int
    compiled: Compiled
    feed: Callable[[Any], None] | None = None  # as run, on this batch


def programs(workload: Workload, mesh: Mesh, mode: Compile, precision: str) -> Iterator[Program]:
    """The programs of a workload, one after another: the first one's arrays are freed before the second."""
    if workload.members > 1:
        yield _sweep(workload, mesh, precision)
    else:
        yield _training(workload, mesh, mode, precision)
    if workload.inference is not None:
        yield _inference(workload, mesh, precision)


def compiled(make: Callable[[], Any], *arguments: Any) -> Compiled:
    """make() gives a jitted function; it is lowered for these arguments and compiled, twice."""
    with tempfile.TemporaryDirectory(prefix="jaxmodels-bench-") as folder, _cache(folder):
        start = time.perf_counter()
        lowered = make().lower(*arguments)
        traced = time.perf_counter()
        lowered.compile()
        cold = time.perf_counter()
        jax.clear_caches()
        lowered = make().lower(*arguments)
        again = time.perf_counter()
        program = lowered.compile()
        done = time.perf_counter()
    memory = program.memory_analysis()
    planned = None
    if memory is not None:
        planned = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        planned -= memory.alias_size_in_bytes
    return Compiled(program, traced - start, cold - traced, done - again, planned)


@contextlib.contextmanager
def _cache(folder: str) -> Iterator[None]:
    """JAX's persistent cache in this folder, for every program."""
    wanted = {
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in wanted}
    try:
        for name, value in wanted.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def _training(workload: Workload, mesh: Mesh, mode: Compile, precision: str) -> Program:
    experiment = workload.experiment(RATE)
    data = experiment.train
    axis = PMAP_AXIS if mode == "pmap" else None
    advance = make_step(experiment, precision=precision, axis=axis)
    shapes = jax.eval_shape(lambda: initial(experiment))
    whole = replicated(mesh)
    shardings = (
        jax.tree.map(lambda _: whole, shapes)
        if mode == "pmap"
        else rules.state_shardings(shapes, mesh, experiment.rules)
    )
    state = jax.jit(lambda: initial(experiment), out_shardings=shardings)()
    batch = jax.device_put(dict(data.rows(0, 0, data.batch)), batch_sharding(mesh))

    def fn(state: Any, dataset: Any, batch: Any) -> tuple[Any, Any]:
        return advance(state, batch)

    counted = step_flops(experiment, shapes, precision=precision)
    made = compiled(lambda: compile_step(fn, mode, mesh, shardings, leading=0), state, (), batch)
    box = [state]

    def run(batch: Any = batch) -> None:
        box[0], metrics = made.call(box[0], (), batch)
        jax.block_until_ready((box[0], metrics))

    def feed(batch: Any) -> None:
        run(jax.device_put(batch, batch_sharding(mesh)))

    unit, units = workload.units
    traffic = 2 * size(state) + size(batch)
    return Program(
        "training", workload.about, run, unit, units, counted.model, counted.loops, traffic, made, feed
    )


def _sweep(workload: Workload, mesh: Mesh, precision: str) -> Program:
    """Members that differ in their learning rate, in one program."""
    data = workload.experiment(RATE).train
    batch = jax.device_put(dict(data.rows(0, 0, data.batch)), replicated(mesh))
    rate_N = RATE * jnp.linspace(0.5, 2, workload.members)

    def start(rate: jax.Array) -> step.State:
        return initial(workload.experiment(rate))  # type: ignore[arg-type]

    def advance(state_N: Any, rate_N: jax.Array, batch: Any) -> tuple[Any, Any]:
        def one(state: Any, rate: jax.Array) -> tuple[Any, Any]:
            return make_step(workload.experiment(rate), precision=precision)(state, batch)  # type: ignore[arg-type]

        return jax.vmap(one)(state_N, rate_N)

    made_state = jax.jit(jax.vmap(start), out_shardings=replicated(mesh))(rate_N)
    experiment = workload.experiment(RATE)
    counted = step_flops(experiment, jax.eval_shape(lambda: initial(experiment)), precision=precision)
    made = compiled(lambda: jax.jit(advance, donate_argnums=0), made_state, rate_N, batch)
    box = [made_state]

    def run() -> None:
        box[0], metrics = made.call(box[0], rate_N, batch)
        jax.block_until_ready((box[0], metrics))

    unit, units = workload.units
    total = {kind: n * workload.members for kind, n in counted.model.items()}
    traffic = 2 * size(made_state) + size(batch)
    return Program("training", workload.about, run, unit, units, total, counted.loops, traffic, made)


def _inference(workload: Workload, mesh: Mesh, precision: str) -> Program:
    assert workload.inference is not None
    inference, experiment = workload.inference, workload.experiment(RATE)
    first = batch_shapes(experiment.train, 1)

    def variables() -> tuple[Any, Any]:
        zeros = {name: jnp.zeros(x.shape, x.dtype) for name, x in first.items()}
        params, extra = experiment.task.init(jax.random.key(0), zeros)
        return step.cast_floats(params, as_dtype(precision)), extra

    params, extra = jax.jit(variables, out_shardings=replicated(mesh))()
    divides = all(len(x) % mesh.size == 0 for x in inference.batch.values())
    batch = jax.device_put(inference.batch, batch_sharding(mesh) if divides else replicated(mesh))
    with lowered_for("definition"):
        counted = flops.count(jax.make_jaxpr(inference.run)(params, extra, batch))
    made = compiled(lambda: jax.jit(traced_for(mesh, inference.run)), params, extra, batch)

    def run() -> None:
        jax.block_until_ready(made.call(params, extra, batch))

    traffic = inference.reads_parameters * size(params) + size(batch)
    unit = workload.units[0]
    return Program(
        "inference",
        f"{workload.about.partition(',')[0]}, {inference.about}",
        run,
        unit,
        inference.units,
        counted.by_type(),
        counted.loops,
        traffic,
        made,
    )
