"""launch: all processes of a run on this computer, started, watched and stopped together."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxmodels.console import Console
from jaxmodels.launch.exit_statuses import RESTARTABLE
from jaxmodels.options import DistributedOptions


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """The processes that are started on this computer."""

    processes: int = 2
    """How many processes."""
    devices_each: int = 1
    """GPUs of each process. No effect on CPUs, where JAX_NUM_CPU_DEVICES says how many each simulates."""
    restarts: int = 0
    """How often all are started again after one was lost or stalled."""
    lost_after: float = DistributedOptions.lost_after
    """Seconds without a sign of life after which a process is lost, and the others stop with status 76."""


def launch(
    words: Sequence[str],
    folder: Path,
    *,
    processes: int = LaunchOptions.processes,
    devices_each: int = LaunchOptions.devices_each,
    restarts: int = LaunchOptions.restarts,
    lost_after: float = LaunchOptions.lost_after,
    console: Console | None = None,
) -> int:
    """Trains in several processes on this computer.

    Returns the exit status of the first process that failed, else of process 0.

    words: the file, and train's options and knobs, as on the command line.
    folder: the run's. The output of every process but 0 is kept there, in processes/N.log; that of process 0
        is this one's.

    Ctrl-C and SIGTERM save and stop all; a second one kills. The processes find each other at 127.0.0.1,
    which no other computer reaches; NCCL takes the same interface, and on CPUs Gloo listens at the address of
    the computer's own name.
    """
    if processes < 1 or devices_each < 1 or restarts < 0 or lost_after <= 0:
        raise ValueError(
            f"launch: got processes={processes}, devices_each={devices_each}, restarts={restarts}, "
            f"lost_after={lost_after}; expected at least one process and device, 0 restarts or more, and a "
            "time above 0. Change these options"
        )
    from jaxmodels.launch.launcher import Group

    console = console or Console(quiet=True)
    for attempt in range(restarts + 1):
        if attempt:
            words = [word for word in words if word != "--fresh"]
            console.warn(f"started again ({attempt} of {restarts}) from the newest checkpoint")
        logs = Path(tempfile.mkdtemp(prefix="jaxmodels-launch-"))
        try:
            group = Group(words, logs, processes, devices_each, lost_after, console)
            status = group.run()
        finally:
            keep_logs(logs, folder, console)
        if group.stopped or status not in RESTARTABLE:
            break
    return status


def keep_logs(logs: Path, folder: Path, console: Console) -> None:
    """Moves the processes' logs into a run's folder, where there is one."""
    from jaxmodels.runs import files

    try:
        if folder.is_dir():
            kept = files.inside(folder, "processes")
            kept.mkdir(exist_ok=True)
            for log in files.regular(logs, "*.log"):
                with log.open("rb") as source, files.replacing(kept / log.name) as target:
                    shutil.copyfileobj(source, target)
    except (OSError, files.BadFile) as error:
        console.warn(f"the processes' output is not kept ({error})")
    shutil.rmtree(logs, ignore_errors=True)
