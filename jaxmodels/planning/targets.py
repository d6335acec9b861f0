"""Names of machines: v5p-512, v5p:8x8x8, 2xv5p-256, h200-256, cpu:8. Numbers count chips, never cores.

Google's own names of v4-N, v5p-N and tpu7x-N slices count TensorCores, two to a chip; its v5e-N and v6e-N
count chips. Here N counts chips for every device, and a topology leaves no doubt.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import NamedTuple

from jaxmodels.analysis.devices import DEVICES, Device

COUNTING = "numbers count chips (Google's own v4-N, v5p-N and tpu7x-N count two cores to a chip)"
SIDES = (4, 8, 12, 16, 20, 24, 28, 32)  # of slices with three dimensions, beyond one cube of 4x4x4


class Target(NamedTuple):
    """Slices of chips: fast links connect the chips of a slice, a network the slices."""

    device: Device
    shape: tuple[int, ...]  # of a slice: its torus, or (hosts, GPUs of a host)
    slices: int = 1

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return self.slices * math.prod(self.shape)

    @property
    def devices(self) -> int:
        """Devices of all slices, as JAX counts them."""
        return self.chips * self.device.devices

    @property
    def memory(self) -> int:
        """Bytes of one of JAX's devices."""
        return self.device.memory // self.device.devices

    @property
    def topology(self) -> str:
        """One slice, as its compiler reads it."""
        size = "x".join(map(str, self.shape))
        return f"{self.device.name}:{size}" if self.device.platform == "tpu" else f"{size}x1"

    @property
    def name(self) -> str:
        """The canonical name: with the topology where there is a torus."""
        if self.device.name == "cpu":
            return f"cpu:{self.chips}"
        one = self.topology if self.device.torus else f"{self.device.name}-{math.prod(self.shape)}"
        return one if self.slices == 1 else f"{self.slices}x{one}"

    def describe(self) -> str:
        """The machine in words."""
        device, count = self.device, f"{self.chips:,}"
        if device.name == "cpu":
            return f"{count} simulated CPU devices"
        if device.torus:
            kind, inside = f"TPU {device.name}", f"{'x'.join(map(str, self.shape))} torus"
        else:
            kind, inside = device.name.upper(), f"{self.shape[0]} hosts of {self.shape[1]}"
        vendor = "chips of" if device.vendor == "google" else "NVIDIA"
        slices = f"{self.slices} slices, each a " if self.slices > 1 else ""
        cores = math.prod(self.shape) * device.cores
        counted = f", {cores:,} cores in Google's name" if device.cores > 1 else ""
        return f"{count} {vendor} {kind} ({slices}{inside}{counted})"


def target(text: str) -> Target:
    """The machine of this name; raises ValueError with the nearest ones where there is none."""
    match = re.fullmatch(
        r"(?:(\d+)x(?=[a-z]))?([a-z]+\d*[a-z]*)(?:([-:x])(\d+(?:x\d+)*))?", text.strip().lower()
    )
    name = match[2] if match else re.split(r"[-:]", text.strip().lower())[0]
    if match is None or name not in DEVICES:
        close = difflib.get_close_matches(name, DEVICES, n=3, cutoff=0.3)
        near = f"nearest: {', '.join(close)}" if close else f"known: {', '.join(DEVICES)}"
        raise ValueError(
            f"--on {text}: got no known machine; {near}. "
            f"Write v5p-512, v5p:8x8x8, 2xv5p-256, h200-256 or cpu:8; {COUNTING}"
        )
    device, sizes = DEVICES[name], tuple(map(int, (match[4] or "1").split("x")))
    slices = int(match[1] or 1)
    if slices < 1 or min(sizes) < 1:
        raise ValueError(f"--on {text}: got a size of 0; expected at least 1. Give every size")
    if device.torus:
        return Target(device, _torus(text, device, sizes), slices)
    if slices > 1 or len(sizes) > 1:
        total = slices * math.prod(sizes)
        raise ValueError(
            f"--on {text}: got slices or a topology of {name}; expected a number of chips. "
            f"Write {name}-{total}"
        )
    [n] = sizes
    if device.name == "cpu":
        return Target(device, (n,))
    if n > device.host and n % device.host:
        down, up = n // device.host * device.host, -(-n // device.host) * device.host
        raise ValueError(
            f"--on {text}: got {n} chips; expected full hosts of {device.host}. "
            f"Nearest: {name}-{down}, {name}-{up}"
        )
    return Target(device, (max(1, n // device.host), min(n, device.host)))


def _torus(text: str, device: Device, sizes: tuple[int, ...]) -> tuple[int, ...]:
    known = shapes(device)
    if len(sizes) == 1:
        of_size = [shape for shape in known if math.prod(shape) == sizes[0]]
        if of_size:
            return min(of_size, key=lambda shape: (max(shape) - min(shape), shape))  # the nearest to a cube
    elif tuple(sizes) in known:
        return sizes

    def distance(shape: tuple[int, ...]) -> tuple[float, int]:
        return abs(math.log(math.prod(shape) / math.prod(sizes))), max(shape) - min(shape)

    near: dict[int, tuple[int, ...]] = {}  # by number of chips
    for shape in sorted(known, key=distance):
        near.setdefault(math.prod(shape), shape)
    names = [f"{device.name}:{'x'.join(map(str, shape))} ({chips} chips)" for chips, shape in near.items()]
    raise ValueError(
        f"--on {text}: got no slice of {device.name}; nearest: {', '.join(names[:3])}. "
        f"Take one of those; {COUNTING}"
    )


def shapes(device: Device) -> list[tuple[int, ...]]:
    """The slices of a TPU: in three dimensions up to one cube of 4x4x4, then cubes side by side."""
    known: list[tuple[int, ...]]
    if device.torus == 2:
        known = [(1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16)]
    else:
        known = [(1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4)]
        known += [(a, b, c) for a in SIDES for b in SIDES if b >= a for c in SIDES if c >= b]
    return [shape for shape in known if math.prod(shape) <= device.pod]
