"""A device's memory: how much was used, and what fills it where it was not enough."""

from __future__ import annotations

import re
import resource
import sys
from typing import Any

import jax
import numpy as np

from jaxmodels.step import State


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of JAX says that the device's memory was not enough."""
    return "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)


def out_of_memory(error: BaseException, state: State, batch: Any, micro_batches: int) -> str:
    """What fills the device, and what to lower. state and batch: arrays or their shapes."""
    requested = re.search(r"allocat\w+ (?:of )?(\d[\d.]*\s?\w*)", str(error))
    return (
        f"the device is out of memory{f' (asked for {requested.group(1)})' if requested else ''}. It holds: "
        "parameters "
        f"{in_bytes(size(state.params))}, optimizer state {in_bytes(size(state.opt_state))}, other "
        "variables "
        f"{in_bytes(size(state.extra))}, one batch {in_bytes(size(batch))}; the gradient is as large as "
        "the parameters, "
        f"activations grow with the batch.\nLower the batch, or split it: --accumulate {2 * micro_batches}. "
        "Rematerialize "
        "activations (a model's remat=True), use --precision bfloat16, or split parameters and optimizer "
        "state: --mesh "
        "fsdp=N."
    )


def size(tree: Any) -> int:
    """Bytes of a tree of arrays or shapes."""
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def in_bytes(n: float) -> str:
    """A number of bytes with its unit: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"


def peak_memory() -> int:
    """Bytes: of the fullest device, where it tells, else of the process."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    on_device = max((s.get("peak_bytes_in_use", 0) for s in stats), default=0)
    if on_device:
        return on_device
    unit = 1 if sys.platform == "darwin" else 1024  # bytes, of what the system counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
