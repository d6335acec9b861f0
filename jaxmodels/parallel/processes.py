"""Many processes that train as one, by JAX's multi-controller runtime: joining, and agreeing between them.

Every process runs the same program. What is decided or written once is process 0's: `on_first_process` runs
it there, and hands its value, or its failure, to all. In a process of its own everything here is free, and no
backend is touched.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmodels.launch import supervisor
from jaxmodels.launch.cluster import Cluster
from jaxmodels.launch.exit_statuses import FirstFailed, status_of

T = TypeVar("T")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
REASON = 300  # bytes of a failure that others hear of


def join(cluster: Cluster | None, *, preemption: bool = True) -> None:
    """Joins the others; before any JAX backend is touched, and once. None: this process is alone.

    preemption: JAX takes SIGTERM, and brings all processes to stop at the same step.
    """
    if cluster is None or jax.distributed.is_initialized():
        return
    jax.config.update("jax_enable_preemption_service", preemption)
    if cluster.coordinator:
        host = cluster.coordinator.rpartition(":")[0]
        here = cluster.coordinator if host in LOOPBACK else None  # else JAX listens on every address
        jax.distributed.initialize(
            cluster.coordinator, cluster.processes, cluster.process, coordinator_bind_address=here
        )
    else:
        jax.distributed.initialize()


def count() -> int:
    """How many processes there are."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def first() -> bool:
    """Whether this is process 0, which writes and speaks for all."""
    return count() == 1 or jax.process_index() == 0


def on_first_process(make: Callable[[], T]) -> T:
    """make() of process 0, which alone calls it; JSON.

    Called by all processes; raises in all where it fails.
    """
    if count() == 1:
        return make()
    said: dict[str, Any] = {}
    error: Exception | None = None
    if first():
        try:
            said = {"value": make()}
        except Exception as failure:
            error, said = failure, {"exit_status": status_of(failure), "text": str(failure)}
    heard = json.loads(_broadcast(json.dumps(said, default=float)))
    if error is not None:
        raise error
    if "exit_status" in heard:
        raise FirstFailed(heard["exit_status"], heard["text"])
    return said["value"] if first() else heard["value"]


def shared_failure(error: BaseException | None) -> BaseException | None:
    """This process's error, else one that says what another's was; called by all."""
    if count() == 1:
        return error
    text = str(error).strip() or type(error).__name__
    mine = np.zeros(REASON, np.uint8)
    if error is not None:
        said = np.frombuffer(text.encode()[:REASON], np.uint8)
        mine[: len(said)] = said
    for number, theirs in enumerate(multihost_utils.process_allgather(mine)):
        if theirs.any() and error is None:
            return OSError(f"process {number}: {bytes(theirs).rstrip(bytes(1)).decode(errors='replace')}")
    return error


def barrier(name: str) -> None:
    """Returns when all processes have come here."""
    if count() > 1:
        multihost_utils.sync_global_devices(name)


def whole(tree: Any, mesh: Mesh) -> Any:
    """The tree with every array whole in every process; called by all."""
    if count() == 1:
        return tree
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)


def watch(folder: Path) -> None:
    """Gives the guards of all processes a place in the run's folder for their signs of life."""
    if count() > 1:
        place = on_first_process(lambda: str(supervisor.prepare(folder, count())))
        supervisor.report(Path(place), jax.process_index(), count())


def _broadcast(text: str) -> str:
    """Process 0's text, in all."""
    mine = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(mine))))
    sent = mine if first() else np.zeros(size, np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(sent)).decode()
