"""How fast a device exchanges bytes along the axes of a mesh: which links of the machine an axis runs over."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from jaxmodels.planning.targets import Target


class Link(NamedTuple):
    """What the exchanges over some axes run on. rate: bytes per second that a device sends; side: longest way, in hops."""

    name: str
    rate: float
    side: int


def places(target: Target, devices: np.ndarray | None, sizes: dict[str, int]) -> np.ndarray:
    """Where each device of the mesh is: an array of the mesh's shape, with (slice, host, place in the torus) behind it.

    devices: as JAX laid them on the mesh; where the target's compiler is absent they are taken in order.
    """
    shape = tuple(sizes.values())
    inside = target.shape if target.device.torus else (target.shape[0],)
    if devices is None or not target.device.torus:
        order = np.arange(math.prod(shape))
        if devices is not None:
            order = np.array([d.id for d in devices.flat])
        order //= target.device.devices
        slices, rest = np.divmod(order, math.prod(target.shape))
        if target.device.torus:
            found = np.stack([slices, 0 * slices, *np.unravel_index(rest, inside)], -1)
        else:
            found = np.stack([slices, rest // target.shape[-1], 0 * rest], -1)
    else:
        found = np.array([[getattr(d, "slice_index", 0) or 0, 0, *d.coords] for d in devices.flat])
    return found.reshape(*shape, -1)


def road(target: Target, where: np.ndarray, sizes: dict[str, int], axes: tuple[str, ...]) -> Link:
    """What an exchange over these axes of the mesh runs on."""
    device, names = target.device, list(sizes)
    if device.platform == "cpu":
        return Link("memory", 0.0, 1)
    part = where[tuple(slice(None) if name in axes else 0 for name in names)].reshape(-1, where.shape[-1])
    extent = [len(np.unique(column)) for column in part.T]
    n = len(part)
    if extent[0] > 1:  # the devices of a slice share their ways out
        return Link("network", (n / extent[0]) * device.network / device.devices, 1)
    if not device.torus:
        hosts = extent[1]
        if hosts == 1:
            return Link("NVLink", device.link, 1)
        return Link("network", min(device.link, n / hosts * device.network), 1)
    rate, side = 0.0, 1
    for spread, whole in zip(extent[2:], target.shape, strict=False):
        if spread > 1:
            # A whole side is a ring, used both ways: Google closes sides of 4 and more, in two dimensions of
            # 16.
            ring = spread == whole and whole >= (4 if device.torus == 3 else 16)
            rate, side = rate + device.link * (2 if ring else 1), max(side, spread)
    if not rate:  # the two devices of one chip
        return Link("chip", 2 * device.link * device.torus, 1)
    return Link(f"ICI, {'x'.join(str(e) for e in extent[2:] if e > 1)}", rate / device.devices, side)
