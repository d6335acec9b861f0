"""The name of a machine: v5p-512, v5p:8x8x8, 2xv5p-256, h200-256, cpu:8. Numbers count chips, never cores.

Google's own names of v4-N, v5p-N and tpu7x-N slices count TensorCores, two to a chip; its v5e-N and v6e-N
count chips. Here N is chips for every device, and a topology says it without doubt.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import NamedTuple

from jaxmodels.planning.devices import DEVICES, Device

COUNTING = "numbers count chips (Google's own v4-N, v5p-N and tpu7x-N count two cores to a chip)"
SIDES = {2: (1, 2, 4, 8, 16), 3: (1, 2, 4, 8, 12, 16, 20, 24, 28, 32)}


class Target(NamedTuple):
    """So many slices of so many chips, joined inside by fast links and with each other by a network."""

    device: Device
    shape: tuple[int, ...]  # of a slice: its torus, or (hosts, GPUs of a host)
    slices: int = 1

    @property
    def chips(self) -> int:
        """Of all slices."""
        return self.slices * math.prod(self.shape)

    @property
    def devices(self) -> int:
        """As JAX counts them."""
        return self.chips * self.device.devices

    @property
    def memory(self) -> int:
        """Bytes of what JAX calls a device."""
        return self.device.memory // self.device.devices

    @property
    def topology(self) -> str:
        """Of one slice, as its compiler reads it."""
        size = "x".join(map(str, self.shape))
        return f"{self.device.name}:{size}" if self.device.platform == "tpu" else f"{size}x1"

    @property
    def name(self) -> str:
        """Canonical: with the topology where there is a torus."""
        if self.device.name == "cpu":
            return f"cpu:{self.chips}"
        one = self.topology if self.device.torus else f"{self.device.name}-{math.prod(self.shape)}"
        return one if self.slices == 1 else f"{self.slices}x{one}"

    def describe(self) -> str:
        """In words."""
        d, n = self.device, f"{self.chips:,}"
        if d.name == "cpu":
            return f"{n} simulated CPU devices"
        kind = f"{n} {'chips of TPU' if d.vendor == 'google' else 'NVIDIA'} {d.name if d.torus else d.name.upper()}"
        inside = (
            f"{'x'.join(map(str, self.shape))} torus"
            if d.torus
            else f"{self.shape[0]} hosts of {self.shape[1]}"
        )
        counted = f", {math.prod(self.shape) * d.cores:,} cores in Google's name" if d.cores > 1 else ""
        return f"{kind} ({f'{self.slices} slices, each a ' if self.slices > 1 else ''}{inside}{counted})"


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
            f"--on {text}: there is no such machine; {near}. "
            f"Write v5p-512, v5p:8x8x8, 2xv5p-256, h200-256 or cpu:8; {COUNTING}"
        )
    device, sizes = DEVICES[name], tuple(map(int, (match[4] or "1").split("x")))
    slices = int(match[1] or 1)
    if slices < 1 or min(sizes) < 1:
        raise ValueError(f"--on {text}: came a size of 0; wanted at least 1 of everything")
    if device.torus:
        return Target(device, _torus(text, device, sizes), slices)
    if slices > 1 or len(sizes) > 1:
        raise ValueError(
            f"--on {text}: slices and topologies are of TPUs; write {name}-{slices * math.prod(sizes)}"
        )
    [n] = sizes
    if device.name == "cpu":
        return Target(device, (n,))
    if n > device.host and n % device.host:
        down, up = n // device.host * device.host, -(-n // device.host) * device.host
        raise ValueError(
            f"--on {text}: {device.name} comes in hosts of {device.host}; nearest: {name}-{down}, {name}-{up}"
        )
    return Target(device, (max(1, n // device.host), min(n, device.host)))


def _torus(text: str, device: Device, sizes: tuple[int, ...]) -> tuple[int, ...]:
    every = shapes(device)
    if len(sizes) == 1:
        of = [s for s in every if math.prod(s) == sizes[0]]
        if of:
            return min(of, key=lambda s: (max(s) - min(s), s))  # as near a cube as there is
    elif tuple(sizes) in every:
        return sizes
    near: list[tuple[int, ...]] = []
    for shape in sorted(
        every, key=lambda s: (abs(math.log(math.prod(s) / math.prod(sizes))), max(s) - min(s))
    ):
        if math.prod(shape) not in map(math.prod, near):
            near.append(shape)
    names = ", ".join(f"{device.name}:{'x'.join(map(str, s))} ({math.prod(s)} chips)" for s in near[:3])
    raise ValueError(f"--on {text}: there is no such slice of {device.name}; nearest: {names}; {COUNTING}")


def shapes(device: Device) -> list[tuple[int, ...]]:
    """The slices of a TPU: in three dimensions up to one cube of 4x4x4, then cubes side by side."""
    found: list[tuple[int, ...]]
    if device.torus == 2:
        found = [(1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16)]
    else:
        found = [(1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4)]
        sides = [s for s in SIDES[3] if s >= 4 and s % 4 == 0]
        found += [(a, b, c) for a in sides for b in sides if b >= a for c in sides if c >= b]
    return [s for s in found if math.prod(s) <= device.pod]
