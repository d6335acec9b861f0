"""Starts the processes of a run on this computer, watches them, and stops them together."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxmodels.console import Console, shown
from jaxmodels.launch import supervisor
from jaxmodels.launch.exit_statuses import ORDERLY, PEER_LOST, of_signal
from jaxmodels.launch.safe_path import python

TAIL_LINES = 25  # shown of a process that failed
TAIL_BYTES = 1 << 20  # of its log, in which these lines are looked for
PATIENCE = 15.0  # seconds beyond --lost-after that the others get to end by themselves


class Group:
    """The processes of one start of `jaxmodels train`. words: see commands.launch. logs: a private folder."""

    def __init__(
        self,
        words: Sequence[str],
        logs: Path,
        processes: int,
        devices_each: int,
        lost_after: float,
        console: Console,
    ):
        self.logs, self.lost_after, self.console = logs, lost_after, console
        self.stopped = 0  # the signal that this process received
        self.statuses: dict[int, int] = {}
        self.started: list[subprocess.Popen[Any]] = []
        self._handlers = {
            number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)
        }
        command = [*python("jaxmodels"), "train", *words, "--coordinator", f"127.0.0.1:{_free_port()}"]
        command += ["--processes", str(processes), "--lost-after", str(lost_after)]
        for process in range(processes):
            first_device = process * devices_each
            devices = range(first_device, first_device + devices_each)
            env = {
                "JAX_LOCAL_DEVICE_IDS": ",".join(map(str, devices)),
                "NCCL_SOCKET_IFNAME": "lo",
                **os.environ,
                supervisor.LAUNCHER: str(os.getpid()),
            }
            self._start([*command, "--process", str(process)], env, process)

    def _start(self, command: list[str], env: dict[str, str], process: int) -> None:
        """Process 0 has this one's output; each of the others its own log."""
        with (self.logs / f"{process}.log").open("wb") if process else open(os.devnull, "wb") as log:
            output: Any = {"stdout": log, "stderr": log} if process else {}
            self.started.append(
                subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, start_new_session=True, **output)
            )

    def _stop(self, number: int, frame: Any) -> None:
        again, self.stopped = self.stopped, number
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL if again else signal.SIGTERM)

    def run(self) -> int:
        """Waits for all of them, and gives the exit status of the first that failed, else of process 0."""
        failure, failed_at = 0, time.monotonic()  # status of the first that failed, and when
        try:
            while len(self.statuses) < len(self.started):
                for number, process in enumerate(self.started):
                    code = process.poll()
                    if code is None or number in self.statuses:
                        continue
                    status = of_signal(-code) if code < 0 else code
                    self.statuses[number] = status
                    if status not in ORDERLY and failure in (0, PEER_LOST):
                        failed_at = failed_at if failure else time.monotonic()
                        failure = status
                        self._show(number)
                if failure and time.monotonic() - failed_at > self.lost_after + PATIENCE:
                    self._kill()
                time.sleep(0.05)
        finally:
            self._kill()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
        if failure:
            return failure
        return of_signal(self.stopped) if self.stopped and self.statuses[0] else self.statuses[0]

    def _show(self, number: int) -> None:
        """Prints the end of a failed process's log; process 0's output was seen."""
        self.console.warn(f"process {number} ended with status {self.statuses[number]}")
        if number:
            for line in _tail(self.logs / f"{number}.log"):
                with contextlib.suppress(OSError, ValueError):
                    print(f"[{number}] {shown(line.decode(errors='replace'))}", file=sys.stderr)

    def _kill(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()


def _tail(log: Path) -> list[bytes]:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        return file.read().splitlines()[-TAIL_LINES:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
