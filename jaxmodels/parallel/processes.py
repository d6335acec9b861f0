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
REASON_BYTES = 300  # of a failure's text that the others get


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
    """make(), a JSON value, called in process 0; every process gets it, or raises where it failed.

    Called by all processes.
    """
    if count() == 1:
        return make()
    sent: dict[str, Any] = {}
    error: Exception | None = None
    if first():
        try:
            sent = {"value": make()}
        except Exception as failure:
            error, sent = failure, {"exit_status": status_of(failure), "text": str(failure)}
    received = json.loads(_broadcast(json.dumps(sent, default=float)))
    if error is not None:
        raise error
    if "exit_status" in received:
        raise FirstFailed(received["exit_status"], received["text"])
    return sent["value"] if first() else received["value"]


def shared_failure(error: BaseException | None) -> BaseException | None:
    """This process's error, else an OSError with another process's; called by all."""
    if count() == 1:
        return error
    text = str(error).strip() or type(error).__name__
    own_reason = np.zeros(REASON_BYTES, np.uint8)
    if error is not None:
        encoded = np.frombuffer(text.encode()[:REASON_BYTES], np.uint8)
        own_reason[: len(encoded)] = encoded
    for number, reason in enumerate(multihost_utils.process_allgather(own_reason)):
        if reason.any() and error is None:
            return OSError(f"process {number}: {bytes(reason).rstrip(bytes(1)).decode(errors='replace')}")
    return error


def barrier(name: str) -> None:
    """Returns when all processes have called it."""
    if count() > 1:
        multihost_utils.sync_global_devices(name)


def whole(tree: Any, mesh: Mesh) -> Any:
    """The tree with every array whole in every process; called by all."""
    if count() == 1:
        return tree
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)


def watch(folder: Path) -> None:
    """Gives the guards of all processes a folder in the run's for their signs of life."""
    if count() > 1:
        beats = on_first_process(lambda: str(supervisor.prepare(folder, count())))
        supervisor.report(Path(beats), jax.process_index(), count())


def _broadcast(text: str) -> str:
    """Process 0's text, in all processes."""
    encoded = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(encoded))))
    sent = encoded if first() else np.zeros(size, np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(sent)).decode()
