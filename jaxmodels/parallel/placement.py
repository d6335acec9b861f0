"""Where batches lie on the mesh, and how they get there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmodels.parallel import axes


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, leading: int = 0) -> NamedSharding:
    """The example axis, after `leading` others, split over the batch axes."""
    batch_axes = tuple(axis for axis in axes.BATCH if axis in mesh.shape)
    return NamedSharding(mesh, PartitionSpec(*(None,) * leading, batch_axes))


def split_positions(batch: Any, mesh: Mesh, *, leading: int) -> Any:
    """The batch with its positions, the axis after the examples, split over `context` where it divides them.

    To be traced. leading: axes before the example axis.
    """
    n = mesh.shape.get(axes.CONTEXT, 1)
    position_axis, examples = leading + 1, batch_sharding(mesh, leading).spec

    def split(x: jax.Array) -> jax.Array:
        if x.ndim <= position_axis or x.shape[position_axis] % n:
            return x
        sharding = NamedSharding(mesh, PartitionSpec(*examples, axes.CONTEXT))
        return jax.lax.with_sharding_constraint(x, sharding)

    return batch if n == 1 else jax.tree.map(split, batch)


def put_batch(
    rows: Callable[[int, int], Mapping[str, np.ndarray]], batch: int, mesh: Mesh, *, leading: int = 0
) -> Any:
    """A global batch split over the mesh.

    rows(start, stop) is called only for what this process's devices have.

    leading: axes before the example axis (steps of one dispatch), which rows gives too.
    """
    sharding = batch_sharding(mesh, leading)
    if jax.process_count() == 1:
        return jax.device_put(rows(0, batch), sharding)
    probe = (1,) * leading + (batch,)
    slices = [index[leading] for index in sharding.addressable_devices_indices_map(probe).values() if index]
    bounds = [s.indices(batch)[:2] for s in slices]
    local = rows(min(start for start, _ in bounds), max(stop for _, stop in bounds))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), local)
