"""launch: all processes of a run on this computer, started, watched and stopped together."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxmodels.console import Console, shown
from jaxmodels.launch import supervisor
from jaxmodels.launch.safe_path import python
from jaxmodels.runs import files
from jaxmodels.training.watchdog import STALLED

AGAIN = (
    STALLED,
    supervisor.PEER_LOST,
    128 + signal.SIGABRT,
    128 + signal.SIGKILL,
)  # ends after which a restart makes sense
TAIL, SEEN = 25, 1 << 20  # lines shown of a process that failed, within so many last bytes
PATIENCE = 15.0  # seconds beyond --lost-after that the others get to end by themselves


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
    """Trains in several processes on this computer and gives the exit status: of the first that failed, else of process 0.

    words: the file, and train's options and knobs, as on the command line. folder: the run's, where the
    output of all but process 0 ends, in processes/N.log; process 0's is this one's. Ctrl-C and SIGTERM save
    and stop all; a second one kills. They find each other at 127.0.0.1, which no other computer reaches; NCCL
    takes the same interface, and on CPUs Gloo listens at the address that the computer's own name stands for.
    """
    if processes < 1 or devices_each < 1 or restarts < 0 or lost_after <= 0:
        raise ValueError(
            f"launch: came processes={processes}, devices_each={devices_each}, restarts={restarts}, lost_after={lost_after}"
            "; wanted at least one process and device, 0 restarts or more, and a time above 0"
        )
    console = console or Console(quiet=True)
    for attempt in range(restarts + 1):
        if attempt:
            words = [word for word in words if word != "--fresh"]
            console.warn(f"started again ({attempt} of {restarts}) from the newest checkpoint")
        group = _Group(words, folder, processes, devices_each, lost_after, console)
        status = group.run()
        if group.stopped or status not in AGAIN:
            break
    return status


class _Group:
    """The processes of one start."""

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        processes: int,
        devices_each: int,
        lost_after: float,
        console: Console,
    ):
        self.folder, self.lost_after, self.console = folder, lost_after, console
        self.stopped = 0  # the signal that came
        self.logs = Path(tempfile.mkdtemp(prefix="jaxmodels-launch-"))
        self.status: dict[int, int] = {}
        self.started: list[subprocess.Popen[Any]] = []
        command = [*python("jaxmodels"), "train", *words, "--coordinator", f"127.0.0.1:{_free_port()}"]
        command += ["--processes", str(processes), "--lost-after", str(lost_after)]
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        self._before = before
        for i in range(processes):
            own = ",".join(str(i * devices_each + j) for j in range(devices_each))
            env = {
                "JAX_LOCAL_DEVICE_IDS": own,
                "NCCL_SOCKET_IFNAME": "lo",
                **os.environ,
                supervisor.LAUNCHER: str(os.getpid()),
            }
            with (self.logs / f"{i}.log").open("wb") if i else open(os.devnull, "wb") as log:
                output: Any = {"stdout": log, "stderr": log} if i else {}
                self.started.append(
                    subprocess.Popen(
                        [*command, "--process", str(i)],
                        env=env,
                        stdin=subprocess.DEVNULL,
                        start_new_session=True,
                        **output,
                    )
                )

    def _stop(self, number: int, frame: Any) -> None:
        again, self.stopped = self.stopped, number
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL if again else signal.SIGTERM)

    def run(self) -> int:
        """Waits for all of them."""
        first, since = 0, time.monotonic()  # status of the first that failed, and when
        try:
            while len(self.status) < len(self.started):
                for i, process in enumerate(self.started):
                    code = process.poll()
                    if code is None or i in self.status:
                        continue
                    self.status[i] = 128 - code if code < 0 else code
                    if self.status[i] not in supervisor.IN_ORDER and first in (0, supervisor.PEER_LOST):
                        first, since = self.status[i], since if first else time.monotonic()
                        self._show(i)
                if first and time.monotonic() - since > self.lost_after + PATIENCE:
                    self._kill()
                time.sleep(0.05)
        finally:
            self._kill()
            self._keep_logs()
            for number, handler in self._before.items():
                signal.signal(number, handler)
        if first:
            return first
        return 128 + self.stopped if self.stopped and self.status[0] else self.status[0]

    def _show(self, i: int) -> None:
        """The end of what a failed process said; process 0's was seen."""
        self.console.warn(f"process {i} ended with status {self.status[i]}")
        if i:
            for line in files.read_lines(self.logs / f"{i}.log", limit=SEEN)[0][-TAIL:]:
                with contextlib.suppress(OSError, ValueError):
                    print(f"[{i}] {shown(line.decode(errors='replace'))}", file=sys.stderr)

    def _kill(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _keep_logs(self) -> None:
        try:
            if self.folder.is_dir():
                kept = files.inside(self.folder, "processes")
                kept.mkdir(exist_ok=True)
                for log in files.regular(self.logs, "*.log"):
                    with log.open("rb") as source, files.replacing(kept / log.name) as target:
                        shutil.copyfileobj(source, target)
        except (OSError, files.BadFile) as error:
            self.console.warn(f"the processes' output is not kept ({error})")
        shutil.rmtree(self.logs, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
