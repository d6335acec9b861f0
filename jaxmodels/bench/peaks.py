"""What the devices can do: measured in the same run by a matrix product and a copy, and by the data sheet."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxmodels.analysis.devices import DEVICES, Device
from jaxmodels.parallel.placement import batch_sharding

# Sides of the square product and bytes of the copied array, for each device.
SIDE = {"cpu": 1024, "gpu": 8192, "tpu": 8192}
BYTES = {"cpu": 64 << 20, "gpu": 1 << 30, "tpu": 1 << 30}
# Parts of JAX's names of devices, and the names of the data sheets.
KINDS = {
    "v6 lite": "v6e",
    "v5 lite": "v5e",
    "v5p": "v5p",
    "tpu v5": "v5p",
    "tpu7x": "tpu7x",
    "tpu v4": "v4",
    "gb200": "gb200",
    "b200": "b200",
    "h200": "h200",
    "h100": "h100",
    "a100": "a100",
}


class Peaks(NamedTuple):
    """Timed references on all devices together: each call gives FLOP or bytes per second."""

    product: Callable[[], float]
    copy: Callable[[], float]
    about: dict[str, str]


def datasheet(kind: str) -> Device | None:
    """The vendor's figures of a device by JAX's name of it; None where there are none here."""
    name = next((name for part, name in KINDS.items() if part in kind.lower()), None)
    return DEVICES.get(name) if name else None


def peaks(mesh: Mesh, precision: str) -> Peaks:
    """References for products of this precision; both are compiled and run once before they are given."""
    platform = mesh.devices.flat[0].platform
    side, n = SIDE.get(platform, 1024), mesh.size
    dtype = jnp.dtype(precision)
    sharding = batch_sharding(mesh)
    a = jax.device_put(jnp.ones((n, side, side), dtype) / side, sharding)
    b = jax.device_put(jnp.ones((n, side, side), dtype), sharding)
    x = jax.device_put(jnp.ones((n, BYTES.get(platform, 64 << 20) // 4), jnp.float32), sharding)
    multiply = jax.jit(lambda a, b: a @ b)
    shift = jax.jit(lambda x: x + 1)

    def rate(work: float, call: Callable[[], Any]) -> Callable[[], float]:
        jax.block_until_ready(call())

        def measured() -> float:
            best = float("inf")
            for _ in range(3):
                start = time.perf_counter()
                jax.block_until_ready(call())
                best = min(best, time.perf_counter() - start)
            return work / best

        return measured

    about = {
        "product": f"a product of two {side}x{side} matrices of {precision} on each of {n} devices",
        "copy": f"x + 1 of {x.nbytes // n >> 20} MiB on each of {n} devices, read and written",
    }
    product = rate(2.0 * n * side**3, lambda: multiply(a, b))
    return Peaks(product, rate(2.0 * x.nbytes, lambda: shift(x)), about)
