"""The compiled programs of a group: members' float knobs and seeds are inputs with a leading axis of members.

A program's members are split over the devices, with vmap on each; a single member runs without vmap, since
CPUs are slow at some batched operations. A CPU's devices are its cores, and members on different ones run at
the same time.
Dimensions: M members of a program, D data orders among them, k steps, B batch.
"""

from __future__ import annotations

import contextvars
import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmodels import keys, step
from jaxmodels.analysis import flops
from jaxmodels.experiment import as_evaluation
from jaxmodels.options import Options
from jaxmodels.parallel import axes
from jaxmodels.parallel.compile import compiler_options_for_once, traced_for
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.runs.experiment_file import File
from jaxmodels.state import as_dtype, batch_shapes, initial
from jaxmodels.sweeps.grouping import Group, one_step
from jaxmodels.training.dispatch_size import choose_k
from jaxmodels.training.metrics import pack

FEW = 8  # members of a core, at most, that are timed in one program, apart from all
LONG_STEP = 0.005  # seconds from which on a step on a CPU is worth all its cores
BRIEF_STEP = 2e-4  # seconds below which more members on a core may share much of a step's fixed cost
CORE = 5e10  # FLOPs a second of products that one core is assumed to reach, before anything is measured
LARGE = 4 << 30  # bytes of states that are in memory at a time


class GroupPrograms:
    """The programs of a group's members: compiled once for each number of members in a program."""

    def __init__(self, file: File, configs: Sequence[Any], group: Group, options: Options, mesh: Mesh):
        self.file, self.inputs, self.options, self.mesh = file, group.inputs, options, mesh
        self.config = configs[group.indices[0]]
        self.experiment = file.build(self.config)
        self.names: list[str] = []
        self.eval_names: dict[str, list[str]] = {}
        self._compiled: dict[Any, Any] = {}
        self.compile_s = 0.0

    def values(self, configs: Sequence[Any]) -> dict[str, jax.Array]:
        """The inputs of these members: their float knobs (M)."""
        return {name: jnp.asarray([getattr(c, name) for c in configs], jnp.float32) for name in self.inputs}

    def _built(self, values: dict[str, Any]) -> Any:
        return self.file.build(dataclasses.replace(self.config, **values), like=self.config)

    def start(self, configs: Sequence[Any], seeds: Sequence[int]) -> step.State:
        """The members' states before their first step."""

        def one(values, seed):
            return initial(dataclasses.replace(self._built(values), seed=seed))

        arguments = self.values(configs), jnp.asarray(np.stack([keys.words(seed) for seed in seeds]))
        return self._program(("start", len(configs)), one, arguments, (0, 0))(*arguments)

    @cached_property
    def one(self) -> step.State:
        """Shapes and types of one member's state."""
        return jax.eval_shape(lambda: initial(self.experiment))

    def like(self, M: int) -> step.State:
        """Shapes and types of M members' states."""
        return stacked_shapes(self.one, M, self.sharding(M))

    def part(self, states: Any, start: int, size: int) -> Any:
        """Copies of the members start to start + size, placed for a program of that size."""
        return jax.device_put(_part(states, start, size), self.sharding(size))

    def steps(
        self, values: Any, state: Any, batches: Any, which: np.ndarray, k: int
    ) -> tuple[Any, jax.Array]:
        """(states, packed metrics (M, k, names, 2)) after k steps; the states are donated.

        batches: (k, D, B, ...), placed by batch_sharding; which: for each member the index of its order (M).
        """
        return self._steps_program(values, state, batches, which, k)(values, state, batches, which)

    def _steps_program(self, values: Any, state: Any, batches: Any, which: np.ndarray, k: int) -> Any:
        """The program of `steps`. state: shapes and types are enough."""
        M, D = len(which), jax.tree.leaves(batches)[0].shape[1]
        in_order = np.array_equal(which, np.arange(D))

        def one(values, state, batches, which):
            own = batches if in_order else jax.tree.map(lambda x: x[:, which], batches)
            built = self._built(values)
            advance = one_step(built, self.options)

            def packed(state, batch):
                state, metrics = advance(state, batch)
                self.names = sorted(metrics)
                return state, pack(metrics)

            if k > 1:
                return jax.lax.scan(packed, state, own)
            state, metrics = packed(state, jax.tree.map(lambda x: x[0], own))
            return state, metrics[None]

        member_axes = (0, 0, 1 if in_order else None, 0)
        arguments = (values, state, batches, which)
        return self._program(("steps", M, D, k, in_order), one, arguments, member_axes, donate=(1,))

    def batch_sharding(self, which: np.ndarray, D: int) -> NamedSharding:
        """The sharding of batches for members with these of D orders; one member's order goes to it alone."""
        return self.sharding(len(which), 1 if np.array_equal(which, np.arange(D)) else None)

    def measure(self, name: str, values: Any, state: Any, batch: Any) -> tuple[jax.Array, Any]:
        """(packed metrics (M, names, 2), predictions or None) of an evaluation on one batch."""
        predict = as_evaluation(self.experiment.evals[name]).predict

        def one(values, state, batch):
            built = self._built(values)
            params, extra = step.eval_variables(built.optimizer, state)
            evaluate = step.make_evaluate(built.task, precision=as_dtype(self.options.precision))
            metrics = evaluate(params, extra, batch)
            self.eval_names[name] = sorted(metrics)
            own, others = built.task.unwrap(params, extra)
            return pack(metrics), predict(own, others, batch) if predict else None

        arguments = values, state, batch
        return self._program(("measure", len(state.step), name), one, arguments, (0, 0, None))(*arguments)

    def sharding(self, M: int, axis: int | None = 0) -> NamedSharding:
        """M members over all devices where M is a multiple of their number, else on one device.

        axis: of the members; None puts everything on each device.
        """
        spec = PartitionSpec() if axis is None else PartitionSpec(*(None,) * axis, axes.DATA)
        return NamedSharding(self._mesh_of(M), spec)

    def _mesh_of(self, M: int) -> Mesh:
        return self.mesh if M % self.mesh.size == 0 else make_mesh("data=1", [self.mesh.devices.flat[0]])

    def _program(
        self,
        key: Any,
        one: Callable,
        arguments: Any,
        member_axes: Sequence[int | None],
        donate: tuple[int, ...] = (),
    ) -> Any:
        """one, compiled for key[1] members. member_axes: the axis of the members in each argument."""
        if key not in self._compiled:
            begun, M = time.perf_counter(), key[1]
            shardings, mesh = tuple(self.sharding(M, axis) for axis in member_axes), self._mesh_of(M)
            on_device = for_members(one, M // mesh.size, member_axes)
            traced = traced_for(None, on_device, self.options.remat)
            specs = tuple(sharding.spec for sharding in shardings)
            each = jax.shard_map(
                traced, mesh=mesh, in_specs=specs, out_specs=self.sharding(M).spec, check_vma=False
            )
            once = compiler_options_for_once(mesh) if key[0] == "start" else {}
            jitted = jax.jit(each, in_shardings=shardings, donate_argnums=donate, **once)
            self._compiled[key] = jitted.lower(*arguments).compile()
            self.compile_s += time.perf_counter() - begun
        return self._compiled[key]

    def choose(self, configs: Sequence[Any], batches: Any, events: tuple[int, ...]) -> tuple[int, int]:
        """(members of a program, steps of a dispatch) that are fastest for these. batches: a TrialBatches.

        Accelerators take all members in one program: there is room for many small ones. CPUs take one member
        a core; where its step is long, one for all cores; where it is brief, a few a core whose states fit
        its cache, or all.
        """
        M, spec = len(configs), self.experiment.train.spec.values()
        batch_bytes = self.experiment.train.batch * sum(math.prod(s) * np.dtype(d).itemsize for s, d in spec)
        batch_bytes *= len(batches.orders)
        n = self.mesh.size
        simulated = n > (os.cpu_count() or 1)
        on_cpu = self.mesh.devices.flat[0].platform == "cpu" and not simulated
        some = [n * d for d in range(1, FEW + 1) if M % (n * d) == 0]
        first = [*some, 1][0] if on_cpu else M
        # The start is compiled while the step is traced, on another core.
        aside, context = ThreadPoolExecutor(1), contextvars.copy_context()
        started = aside.submit(context.run, self.start, configs, [0] * M)
        aside.shutdown(wait=False)
        k = self._guess(batch_bytes, events) if on_cpu else 1
        single = self.time_dispatch(started, first, 1, batches) if k == 1 else math.inf
        k = choose_k(single, batch_bytes, events) if k == 1 else k
        alone = on_cpu and BRIEF_STEP * 10 < single < math.inf  # a dispatch of many steps would save nothing
        scanned = self.time_dispatch(started, first, k, batches) / k if k > 1 and not alone else math.inf
        # On CPUs XLA has fast convolutions for the outermost program only, not inside a scan.
        scans = scanned < single or k == 1
        each, best = min((single / first, (first, 1)), (scanned / first, (first, k)))
        took = min(single, scanned)
        others = {1} if took > LONG_STEP else {*some[-1:], M} if took < BRIEF_STEP else set()
        for size in sorted(others - {first}) if on_cpu else ():
            k = choose_k(each * size / 2, batch_bytes, events) if scans else 1
            took = self.time_dispatch(started, size, k, batches) / k / size
            if took > each:
                break
            each, best = took, (size, k)
        return best

    def _guess(self, batch_bytes: int, events: tuple[int, ...]) -> int:
        """Steps of a dispatch, by FLOPs; 1 where a step with convolutions, or a long one, must be timed."""
        shapes = batch_shapes(self.experiment.train)
        closed = jax.make_jaxpr(one_step(self.experiment, self.options))(self.one, shapes)
        seconds = flops.count(closed).total / CORE
        convolves = "conv_general_dilated" in str(closed)
        return 1 if convolves or seconds > LONG_STEP else choose_k(seconds, batch_bytes, events)

    def most_members(self) -> int:
        """The number of members whose states fit into LARGE."""
        state_bytes = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(self.one))
        return max(1, LARGE // state_bytes)

    def time_dispatch(
        self, started: Future[Any], size: int, k: int, batches: Callable[[int, int], Any]
    ) -> float:
        """The seconds of a dispatch, on a copy of the first states."""
        values, (inputs, which) = self.values([self.config] * size), batches(size, k)
        inputs = jax.device_put(inputs, self.batch_sharding(which, jax.tree.leaves(inputs)[0].shape[1]))
        program = self._steps_program(values, self.like(size), inputs, which, k)
        state, times = self.part(started.result(), 0, size), []
        for _ in range(4):
            begun = time.perf_counter()
            state, _ = program(values, state, inputs, which)
            jax.block_until_ready(state)
            times.append(time.perf_counter() - begun)
        return min(times[1:])


@partial(jax.jit, static_argnums=2)  # one small program in place of one for each array
def _part(states: Any, start: int, size: int) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), states)


def stacked_shapes(one: Any, M: int, sharding: NamedSharding) -> Any:
    """Shapes and types of M such trees, stacked."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((M, *x.shape), x.dtype, sharding=sharding), one)


def for_members(one: Callable, M: int, member_axes: Sequence[int | None]) -> Callable:
    """one, for M members; a single member's axis is removed and put back."""
    if M > 1:
        return jax.vmap(one, member_axes)

    def alone(*arguments):
        own = []
        for x, axis in zip(arguments, member_axes, strict=True):
            own.append(x if axis is None else jax.tree.map(lambda leaf, axis=axis: leaf.take(0, axis), x))
        return jax.tree.map(lambda leaf: leaf[None], one(*own))

    return alone
