"""A data set that lies on the device whole, so that a dispatch's input is the indices of its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from jaxmodels.data.narrowing import loss
from jaxmodels.parallel.placement import replicated
from jaxmodels.pipeline import Pipeline

RESIDENT_BYTES = 1 << 30  # a data set up to here is put on the device whole


def can_reside(data: Pipeline) -> bool:
    """Whether the data set can lie on the device: it says how, is small enough, and no number is lost in 32
    bits there.
    """
    arrays = data.resident()
    if arrays is None or sum(x.nbytes for x in arrays.values()) > RESIDENT_BYTES:
        return False
    return all(loss(x) is None for x in arrays.values())


def on_devices(data: Pipeline, mesh: Mesh, resident: bool) -> Any:
    """What every dispatch shares: the data set on every device, or nothing."""
    return jax.device_put(data.resident(), replicated(mesh)) if resident else {}


def unpack(data: Pipeline, resident: bool, split: NamedSharding | None) -> Callable[[Any, Any], Any]:
    """(dataset, inputs) to batches with a leading axis of steps, to be traced.

    split: the batches' sharding under jit.
    """
    if not resident:
        return lambda dataset, inputs: inputs

    def gather(dataset: Any, inputs: Any) -> Any:
        batches = jax.vmap(data.gather, (None, 0))(dataset, inputs)
        return jax.lax.with_sharding_constraint(batches, split) if split else batches

    return gather


def is_wanted(data: Pipeline, mesh: Mesh, option: str, k: int) -> bool:
    """Whether the data set is to lie on the device, for k steps in a dispatch.

    option: see Options.resident.
    """
    fits = option != "off" and can_reside(data)
    if option == "on" and not fits:
        raise ValueError(
            "--resident on: got a data set that is changed on the host for each batch, is over "
            f"{RESIDENT_BYTES >> 20} MiB, or has numbers that 32 bits do not hold; expected one that can lie "
            "on the device. Use --resident auto"
        )
    # A CPU's own memory holds the data anyway: there the gather of a long step is better left to the feed's
    # thread.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return fits and (option == "on" or not on_cpu or k > 1)
