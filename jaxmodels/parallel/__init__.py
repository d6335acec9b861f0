"""Devices: the mesh, how batches reach it, and how a step is compiled for it.

Models name no mesh axis. A batch is split over the axes `data`, `fsdp` and `expert`; where the state lies is
in sharding.py.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmodels.parallel import axes

Compile = Literal["jit", "pmap"]
PMAP_AXIS = "devices"


def make_mesh(text: str = "", devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of "data=4,fsdp=2"; "" puts every device on the data axis."""
    devices = jax.devices() if devices is None else list(devices)
    sizes = mesh_sizes(text) if text else {"data": len(devices)}
    wanted = math.prod(sizes.values())
    if wanted > len(devices) or (jax.process_count() > 1 and wanted != len(devices)):
        raise ValueError(
            f"mesh {text} needs {wanted} devices, there are {len(devices)} of kind {devices[0].device_kind}; "
            f"choose sizes whose product is {len(devices)}"
            + ("" if devices[0].platform != "cpu" else f", or simulate them: JAX_NUM_CPU_DEVICES={wanted}")
        )
    types = (AxisType.Auto,) * len(sizes)
    shape, devices = tuple(sizes.values()), devices[:wanted]
    if slices_of(devices) > 1:
        return Mesh(_over_slices(text, sizes, devices), tuple(sizes), axis_types=types)
    try:
        return jax.make_mesh(shape, tuple(sizes), axis_types=types, devices=devices)
    except NotImplementedError:  # an axis that is no whole side of a TPU's torus
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(grid, tuple(sizes), axis_types=types)


def slices_of(devices: Sequence[Any]) -> int:
    """How many slices of TPUs, joined by a slower network, these devices are of."""
    return (
        len({getattr(device, "slice_index", 0) for device in devices}) if devices[0].platform == "tpu" else 1
    )


def _over_slices(text: str, sizes: dict[str, int], devices: Sequence[Any]) -> np.ndarray:
    """The devices as an array of the mesh's sizes, of which the first axis runs over the slices and the rest inside."""
    slices, (first, *rest) = slices_of(devices), sizes.values()
    if first % slices:
        raise ValueError(
            f"mesh {text}: its first axis goes over {slices} slices, which do not divide {first}; begin with data={slices}"
        )
    inside, across = [first // slices, *rest], [slices, *(1 for _ in rest)]
    return mesh_utils.create_hybrid_device_mesh(inside, across, list(devices), allow_split_physical_axes=True)


def mesh_sizes(text: str) -> dict[str, int]:
    """The axes and their sizes, in order."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if not re.fullmatch(r"\s*[a-z]\w*\s*", name) or not size.strip().isdigit() or int(size) < 1:
            raise ValueError(
                f"mesh: came {text!r}, wanted axes with sizes such as data=8 or data=4,fsdp=2; {part!r} is not of that form"
            )
        sizes[name.strip()] = int(size)
    return sizes


def ways(mesh: Mesh) -> int:
    """Over how many parts a batch is split."""
    return math.prod(mesh.shape[axis] for axis in axes.BATCH if axis in mesh.shape)


def check_batch(mesh: Mesh, batch: int, accumulate: int, name: str) -> None:
    """Raises where the batch cannot be split evenly."""
    if batch < 1:
        raise ValueError(f"{name}: batch is {batch}; it must be at least 1")
    parts = ways(mesh) * accumulate
    if batch % parts:
        down, up = batch // parts * parts, -(-batch // parts) * parts
        near = f"{up}" if not down else f"{down} or {up}"
        counts = {"devices": ways(mesh), "micro-batches": accumulate}
        why = " x ".join(f"{n} {what}" for what, n in counts.items() if n > 1)
        raise ValueError(
            f"{name}: a batch of {batch} does not divide by {why}; set the batch to {near}, or change the mesh"
        )


def compiled_for_once(mesh: Mesh) -> dict[str, Any]:
    """Options of jax.jit for a program that runs once: CPUs' compiler takes longer over it than the program takes."""
    name = "xla_backend_optimization_level"
    asked = mesh.devices.flat[0].platform != "cpu" or name in os.environ.get("XLA_FLAGS", "")
    return {} if asked else {"compiler_options": {name: 1}}


def replicated(mesh: Mesh) -> NamedSharding:
    """On every device, whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, leading: int = 0) -> NamedSharding:
    """The example axis, after `leading` others, split over the batch axes."""
    split = tuple(axis for axis in axes.BATCH if axis in mesh.shape)
    return NamedSharding(mesh, PartitionSpec(*(None,) * leading, split))


def traced_for(mesh: Mesh | None, fn: Callable, remat: str = "model") -> Callable:
    """fn, traced as axes.traced says."""

    @functools.wraps(fn)  # the program's name in a trace
    def traced(*arguments):
        with axes.traced(mesh, remat):
            return fn(*arguments)

    return traced


def split_places(batch: Any, mesh: Mesh, *, leading: int) -> Any:
    """A batch whose places, the axis after the examples, are split over `context` where that divides them; to be traced."""
    n = mesh.shape.get(axes.CONTEXT, 1)
    at, examples = leading + 1, batch_sharding(mesh, leading).spec

    def split(x: jax.Array) -> jax.Array:
        if x.ndim <= at or x.shape[at] % n:
            return x
        return jax.lax.with_sharding_constraint(
            x, NamedSharding(mesh, PartitionSpec(*examples, axes.CONTEXT))
        )

    return batch if n == 1 else jax.tree.map(split, batch)


def put(
    rows: Callable[[int, int], Mapping[str, np.ndarray]], batch: int, mesh: Mesh, *, leading: int = 0
) -> Any:
    """A global batch split over the mesh; rows(start, stop) is asked only for what this process's devices hold.

    leading: axes before the example axis (steps of one dispatch), in what rows gives too.
    """
    sharding = batch_sharding(mesh, leading)
    if jax.process_count() == 1:
        return jax.device_put(rows(0, batch), sharding)
    probe = (1,) * leading + (batch,)
    held = [
        s[leading].indices(batch)[:2] for s in sharding.addressable_devices_indices_map(probe).values() if s
    ]
    start, stop = min(h[0] for h in held), max(h[1] for h in held)
    local = rows(start, stop)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), local)


def compile_step(
    fn: Callable,
    mode: Compile,
    mesh: Mesh,
    state: Any,
    *,
    leading: int,
    donate: bool = True,
    remat: str = "model",
) -> jax.stages.Wrapped:
    """fn(state, fixed, moving) -> (state, metrics), compiled by jit with shardings or by pmap.

    state: its shardings, under jit. fixed: arrays that every device holds. moving: its example axis, behind
    `leading` others, is split. remat: see axes.traced. Under pmap fn sees one device's part and must add over
    PMAP_AXIS itself.
    """
    whole = replicated(mesh)
    gone = (0,) if donate else ()
    if mode == "jit":
        moving = batch_sharding(mesh, leading)
        fn = traced_for(mesh, fn, remat)
        return jax.jit(
            fn, in_shardings=(state, whole, moving), out_shardings=(state, whole), donate_argnums=gone
        )
    n = mesh.size
    mapped = jax.pmap(
        traced_for(None, fn, remat),
        axis_name=PMAP_AXIS,
        in_axes=(None, None, leading),
        out_axes=None,
        devices=list(mesh.devices.flat),
        donate_argnums=gone,
    )

    def by_device(x):
        return x.reshape(*x.shape[:leading], n, x.shape[leading] // n, *x.shape[leading + 1 :])

    return jax.jit(lambda s, f, m: mapped(s, f, jax.tree.map(by_device, m)), donate_argnums=gone)


def check_pmap(mesh: Mesh) -> None:
    """pmap knows one axis, over which the batch is split: nothing else can be."""
    if set(mesh.shape) != {"data"}:
        got = ",".join(f"{k}={v}" for k, v in mesh.shape.items())
        raise ValueError(
            f"--compile pmap splits the batch and nothing else; came mesh {got}. Use --mesh data=N, or --compile jit"
        )


def in_flight(mesh: Mesh) -> int:
    """How many dispatches may wait on the device.

    Simulated CPU devices share one pool of threads; programs queued behind each other can starve a collective
    of the threads that it waits for, so there every dispatch is awaited.
    """
    return 0 if mesh.devices.flat[0].platform == "cpu" and mesh.size > 1 else 1
