"""The mesh of devices: made from text such as "data=4,fsdp=2", and the batches that it can split.

Models name no mesh axis. A batch is split over the axes `data`, `fsdp` and `expert`; see axes.py. How the
state is split is in rules.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from jaxmodels.parallel import axes


def axis_sizes(text: str) -> dict[str, int]:
    """The axes of "data=4,fsdp=2" and their sizes, in order."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if not re.fullmatch(r"\s*[a-z]\w*\s*", name) or not size.strip().isdigit() or int(size) < 1:
            raise ValueError(
                f"mesh: got {text!r}, in which {part!r} is no axis with its size; expected axes with sizes. "
                "Write data=8 or data=4,fsdp=2"
            )
        sizes[name.strip()] = int(size)
    return sizes


def mesh_text(sizes: Mapping[str, int]) -> str:
    """The text of which axis_sizes makes these sizes."""
    return ",".join(f"{axis}={size}" for axis, size in sizes.items())


def default_sizes(devices: Sequence[Any]) -> dict[str, int]:
    """The mesh that no text describes: every device on the data axis."""
    return {axes.DATA: len(devices)}


def make_mesh(text: str = "", devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of "data=4,fsdp=2"; "" puts every device on the data axis."""
    devices = jax.devices() if devices is None else list(devices)
    sizes = axis_sizes(text) if text else default_sizes(devices)
    size = math.prod(sizes.values())
    if size > len(devices) or (jax.process_count() > 1 and size != len(devices)):
        simulate = f", or simulate them: JAX_NUM_CPU_DEVICES={size}" if devices[0].platform == "cpu" else ""
        raise ValueError(
            f"mesh {text}: got {len(devices)} devices of kind {devices[0].device_kind}; expected {size}. "
            f"Choose sizes whose product is {len(devices)}{simulate}"
        )
    types = (AxisType.Auto,) * len(sizes)
    shape, devices = tuple(sizes.values()), devices[:size]
    if slice_count(devices) > 1:
        return Mesh(_over_slices(text, sizes, devices), tuple(sizes), axis_types=types)
    try:
        return jax.make_mesh(shape, tuple(sizes), axis_types=types, devices=devices)
    except NotImplementedError:  # an axis that is not a whole side of a TPU's torus
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(grid, tuple(sizes), axis_types=types)


def slice_count(devices: Sequence[Any]) -> int:
    """How many slices of TPUs, joined by a slower network, these devices belong to."""
    if devices[0].platform != "tpu":
        return 1
    return len({getattr(device, "slice_index", 0) for device in devices})


def _over_slices(text: str, sizes: dict[str, int], devices: Sequence[Any]) -> np.ndarray:
    """The devices as an array of the mesh's sizes.

    The first axis runs over the slices, the others inside one.
    """
    slices, (first, *rest) = slice_count(devices), sizes.values()
    if first % slices:
        raise ValueError(
            f"mesh {text}: got a first axis of {first} over {slices} slices; expected a multiple of "
            f"{slices}. Begin with data={slices}"
        )
    inside, across = [first // slices, *rest], [slices, *(1 for _ in rest)]
    return mesh_utils.create_hybrid_device_mesh(inside, across, list(devices), allow_split_physical_axes=True)


def fit_devices(text: str, devices: int, batches: Sequence[int], *, use_all: bool) -> str:
    """The mesh as text with the data axis as large as `devices` and the batches allow; all other axes stay.

    batches: sizes that the number of parts must divide. use_all: every device must be used, as in many
    processes. Text that is no mesh, or whose other axes need more devices, comes back as it is: make_mesh
    refuses it.
    """
    try:
        sizes = axis_sizes(text) if text else {}
    except ValueError:
        return text
    others = {axis: size for axis, size in sizes.items() if axis != axes.DATA}
    largest = devices // math.prod(others.values())
    if not largest:
        return text
    parts = math.prod(size for axis, size in others.items() if axis in axes.BATCH)
    data = largest
    if not use_all:
        fitting = (n for n in range(largest, 0, -1) if all(batch % (n * parts) == 0 for batch in batches))
        data = next(fitting, largest)
    if axes.DATA in sizes:
        return mesh_text({**sizes, axes.DATA: data})
    return mesh_text({axes.DATA: data, **sizes})


def batch_ways(mesh: Mesh) -> int:
    """Over how many parts a batch is split."""
    return math.prod(mesh.shape[axis] for axis in axes.BATCH if axis in mesh.shape)


def check_batch(mesh: Mesh, batch: int, accumulate: int, name: str) -> None:
    """Raises ValueError where the batch cannot be split evenly."""
    if batch < 1:
        raise ValueError(f"{name}: got a batch of {batch}; expected at least 1. Raise it")
    parts = batch_ways(mesh) * accumulate
    if batch % parts:
        down, up = batch // parts * parts, -(-batch // parts) * parts
        near = f"{down} or {up}" if down else f"{up}"
        counts = {"devices": batch_ways(mesh), "micro-batches": accumulate}
        divisor = " x ".join(f"{n} {what}" for what, n in counts.items() if n > 1)
        raise ValueError(
            f"{name}: got a batch of {batch}; expected a multiple of {parts} ({divisor}). "
            f"Set the batch to {near}, or change the mesh"
        )


def check_pmap(mesh: Mesh) -> None:
    """Raises ValueError for a mesh of other axes than data: pmap has one axis, which splits the batch."""
    if set(mesh.shape) != {"data"}:
        raise ValueError(
            f"--compile pmap: got the mesh {mesh_text(mesh.shape)}; expected the axis data alone, as pmap "
            "splits only the batch. Use --mesh data=N, or --compile jit"
        )
