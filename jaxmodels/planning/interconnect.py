"""How fast a device exchanges bytes along the axes of a mesh: the links of the machine that an axis uses."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from jaxmodels.planning.targets import Target


class Link(NamedTuple):
    """What exchanges over some axes use.

    rate: bytes per second that a device sends; side: longest way, in hops.
    """

    name: str
    rate: float
    side: int


def device_coordinates(target: Target, devices: np.ndarray | None, sizes: dict[str, int]) -> np.ndarray:
    """(slice, host, coordinates in the torus) of each device: an array of the mesh's shape and one axis more.

    devices: as JAX laid them on the mesh; where the target's compiler is absent they are taken in order.
    """
    shape = tuple(sizes.values())
    if devices is not None and target.device.torus:
        rows = [[getattr(d, "slice_index", 0) or 0, 0, *d.coords] for d in devices.flat]
        return np.array(rows).reshape(*shape, -1)
    order = np.arange(math.prod(shape)) if devices is None else np.array([d.id for d in devices.flat])
    order //= target.device.devices
    slices, rest = np.divmod(order, math.prod(target.shape))
    if target.device.torus:
        coordinates = np.stack([slices, 0 * slices, *np.unravel_index(rest, target.shape)], -1)
    else:
        coordinates = np.stack([slices, rest // target.shape[-1], 0 * rest], -1)
    return coordinates.reshape(*shape, -1)


def link_of_axes(
    target: Target, coordinates: np.ndarray, sizes: dict[str, int], axes: tuple[str, ...]
) -> Link:
    """What an exchange over these axes of the mesh uses. coordinates: of device_coordinates."""
    device = target.device
    if device.platform == "cpu":
        return Link("memory", 0.0, 1)
    group = coordinates[tuple(slice(None) if axis in axes else 0 for axis in sizes)]
    group = group.reshape(-1, coordinates.shape[-1])
    slices, hosts, *extent = [len(np.unique(column)) for column in group.T]
    n = len(group)
    if slices > 1:  # the devices of a slice share its network
        return Link("network", (n / slices) * device.network / device.devices, 1)
    if not device.torus:
        if hosts == 1:
            return Link("NVLink", device.link, 1)
        return Link("network", min(device.link, n / hosts * device.network), 1)
    rate, side = 0.0, 1
    for spread, full in zip(extent, target.shape, strict=False):
        if spread > 1:
            # A full side is a ring, used both ways: Google closes sides of 4 and more, in two dimensions of
            # 16.
            ring = spread == full and full >= (4 if device.torus == 3 else 16)
            rate, side = rate + device.link * (2 if ring else 1), max(side, spread)
    if not rate:  # the two devices of one chip
        return Link("chip", 2 * device.link * device.torus, 1)
    return Link(
        f"ICI, {'x'.join(str(spread) for spread in extent if spread > 1)}", rate / device.devices, side
    )
