"""launch: all processes of a run on this computer, started, watched and stopped together."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jaxmodels.console import Console
from jaxmodels.launch.exit_statuses import RESTARTABLE
from jaxmodels.launch.launcher import Group
from jaxmodels.runs import files


def launch(
    words: Sequence[str],
    folder: Path,
    *,
    processes: int = 2,
    devices_each: int = 1,
    restarts: int = 0,
    lost_after: float = 20.0,
    console: Console | None = None,
) -> int:
    """Trains in several processes on this computer; gives the exit status of the first that failed, else of process 0.

    words: the file, and train's options and knobs, as on the command line. folder: the run's, where the output of
    every process but 0 is kept, in processes/N.log; process 0's is this one's. Ctrl-C and SIGTERM save and stop all;
    a second one kills. They find each other at 127.0.0.1, which no other computer reaches; NCCL takes the same
    interface, and on CPUs Gloo listens at the address that the computer's own name stands for.
    """
    if processes < 1 or devices_each < 1 or restarts < 0 or lost_after <= 0:
        raise ValueError(
            f"launch: got processes={processes}, devices_each={devices_each}, restarts={restarts}, "
            f"lost_after={lost_after}; expected at least one process and device, 0 restarts or more, and a time above 0. "
            "Change these options"
        )
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
