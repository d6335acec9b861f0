"""How a step is compiled for a mesh: by jit with shardings, or by pmap."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from jaxmodels.parallel import axes
from jaxmodels.parallel.placement import batch_sharding, replicated

Compile = Literal["jit", "pmap"]
PMAP_AXIS = "devices"


def traced_for(mesh: Mesh | None, fn: Callable, remat: str = "model") -> Callable:
    """fn, traced within axes.traced(mesh, remat)."""

    @functools.wraps(fn)  # the program's name in a trace
    def traced(*arguments):
        with axes.traced(mesh, remat):
            return fn(*arguments)

    return traced


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
    """fn(state, dataset, inputs) -> (state, metrics), compiled by jit with shardings or by pmap.

    state: its shardings, under jit. dataset: arrays that every device holds whole. inputs: their example
    axis, behind `leading` others, is split. remat: see axes.traced. Under pmap, fn sees one device's part
    and must add over PMAP_AXIS itself.
    """
    donated = (0,) if donate else ()
    if mode == "jit":
        whole, inputs_sharding = replicated(mesh), batch_sharding(mesh, leading)
        return jax.jit(
            traced_for(mesh, fn, remat),
            in_shardings=(state, whole, inputs_sharding),
            out_shardings=(state, whole),
            donate_argnums=donated,
        )
    n = mesh.size
    mapped = jax.pmap(
        traced_for(None, fn, remat),
        axis_name=PMAP_AXIS,
        in_axes=(None, None, leading),
        out_axes=None,
        devices=list(mesh.devices.flat),
        donate_argnums=donated,
    )

    def by_device(x):
        return x.reshape(*x.shape[:leading], n, x.shape[leading] // n, *x.shape[leading + 1 :])

    def step(state, dataset, inputs):
        return mapped(state, dataset, jax.tree.map(by_device, inputs))

    return jax.jit(step, donate_argnums=donated)


def compiler_options_for_once(mesh: Mesh) -> dict[str, Any]:
    """Options of jax.jit for a program that runs once: on CPUs, optimizing it takes longer than
    running it.
    """
    name = "xla_backend_optimization_level"
    leave = mesh.devices.flat[0].platform != "cpu" or name in os.environ.get("XLA_FLAGS", "")
    return {} if leave else {"compiler_options": {name: 1}}


def max_in_flight(mesh: Mesh) -> int:
    """How many dispatches may wait on the device.

    Simulated CPU devices share one pool of threads; programs queued behind each other can starve a
    collective of the threads that it waits for, so there every dispatch is awaited.
    """
    return 0 if mesh.devices.flat[0].platform == "cpu" and mesh.size > 1 else 1
