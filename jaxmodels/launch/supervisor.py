"""The guard of a process that trains together with others: names the one that was lost, and stops the rest.

JAX aborts a process whose peers are gone (status 134, without naming one), and some collectives wait for
ever. So the command forks before anything heavy is imported: the child trains; the parent, this guard,
holds nothing that can hang or be aborted, writes a sign of life into the run's folder about once a
second, and reads those of the others:

    .beats/<start>/<process>    {"process", "host", "pid", "beat", "ended"}, one file, rewritten in place

No clocks are compared: a peer is lost when its file has not changed while this guard looked, and time in
which this guard itself was stopped, or the folder could not be read, counts for nothing. A guard that
outlives its child says how that ended, so a killed process is known to the others at once, and the silence is
needed only for a computer that is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxmodels.launch import cluster
from jaxmodels.launch.exit_statuses import ABORTED, FAILED, ORDERLY, PEER_LOST, of_signal

GRACE = 5.0  # seconds for a process to end by itself after another has failed: they may have failed alike
POLL = 0.1
SIZE = 512  # bytes of a sign of life
LAUNCHER = "JAXMODELS_LAUNCHER"  # the process whose end ends this one

_to_guard: int | None = None  # in the child, the end of a pipe


def stand(words: Sequence[str]) -> bool:
    """Forks where this command is one of several processes.

    Returns True in the child, never in the parent.
    """
    global _to_guard
    if words[:1] not in (["train"], ["evaluate"]) or {"-h", "--help"} & {*words} or not hasattr(os, "fork"):
        return False
    try:
        if cluster.find(words, os.environ) is None:
            return False
        lost_after = max(1.0, float(cluster.option(words, "--lost-after") or cluster.LOST_AFTER))
    except ValueError:
        return False  # the command reports it
    read, write = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(read)
        _to_guard = write
        sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # Gloo greets on the standard output, which may have to be JSON
        threading.Thread(target=_end_with, args=(parent,), name="guarded", daemon=True).start()
        return True
    os.close(write)
    Guard(child, read, lost_after).watch()


def report(folder: Path, process: int, processes: int) -> None:
    """Tells the guard, where there is one, where the signs of life are."""
    if _to_guard is not None:
        os.write(_to_guard, (json.dumps([str(folder), process, processes]) + "\n").encode())


def work(main: Callable[[], int]) -> int:
    """Runs the command in the guarded child; one that fails alone does not wait for the others at its end."""
    try:
        status = main()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        status = FAILED
        with contextlib.suppress(OSError):
            traceback.print_exc()
    if status in ORDERLY:
        return status
    leaving = threading.Thread(target=_shut_down, daemon=True)
    leaving.start()
    leaving.join(GRACE)  # over at once where all leave
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def _shut_down() -> None:
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        with contextlib.suppress(Exception):
            jax.distributed.shutdown()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(PEER_LOST)


def prepare(folder: Path, processes: int) -> Path:
    """A new folder for signs of life.

    It has a file for each process from the start, so that no file system caches one as absent.
    """
    if (folder / ".beats").is_symlink():
        (folder / ".beats").unlink()
    shutil.rmtree(folder / ".beats", ignore_errors=True)
    beats = folder / ".beats" / os.urandom(4).hex()
    beats.mkdir(parents=True)
    for number in range(processes):
        (beats / str(number)).touch()
    return beats


class Peer:
    """What is known of another process."""

    def __init__(self, number: int):
        self.number = number
        self.said: dict[str, Any] = {}
        self.silent = 0.0  # seconds

    @property
    def name(self) -> str:
        """Its number, and where it runs."""
        where = f" ({self.said['host']}, pid {self.said['pid']})" if self.said else " (which never began)"
        return f"process {self.number}{where}"

    def look(self, path: Path, passed: float) -> None:
        """Reads its sign of life; passed: seconds since the last look."""
        try:
            text = path.read_bytes()
        except OSError:
            return  # the folder's fault, not the peer's
        with contextlib.suppress(ValueError):  # written just now, by half
            said = json.loads(text)
            if said != self.said:
                self.said, self.silent = said, 0.0
                return
        self.silent += passed


class Guard:
    """Waits for the child, gives its signs of life, and looks for those of the others."""

    def __init__(self, child: int, pipe: int, lost_after: float):
        self.child, self.pipe, self.lost_after = child, pipe, lost_after
        self.interval = min(1.0, lost_after / 4)
        self.folder: Path | None = None
        self.process, self.peers, self.beats = 0, list[Peer](), 0
        self.launcher = os.getppid() if os.environ.get(LAUNCHER) == str(os.getppid()) else 0
        self.looked = time.monotonic()
        self.ended: int | None = None  # exit status of the child

    def watch(self) -> NoReturn:
        """Until the child has ended; then ends with its status, or with PEER_LOST."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal gives it to the child too
        signal.signal(signal.SIGTERM, lambda *_: self._signal(signal.SIGTERM))
        while True:
            self._reap(POLL)
            self._listen()
            if self.launcher and os.getppid() != self.launcher:
                self._kill()
                os._exit(PEER_LOST)
            if self.ended is not None:
                self._finish(self.ended)
            if time.monotonic() - self.looked >= self.interval:
                self._look()
                if gone := self._gone():
                    self._reap(GRACE if gone.said.get("ended") else 0.0)
                    if self.ended is None:
                        self._kill()
                    self._finish(PEER_LOST if self.ended in (None, -signal.SIGKILL) else self.ended)

    def _reap(self, seconds: float) -> None:
        """Waits up to this long for the child's end."""
        until = time.monotonic() + seconds
        while self.ended is None:
            pid, status = os.waitpid(self.child, os.WNOHANG)
            if pid:
                self.ended = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= until:
                return
            else:
                time.sleep(min(POLL, seconds))

    def _listen(self) -> None:
        if self.folder is None and select.select([self.pipe], [], [], 0)[0]:
            line = os.read(self.pipe, 1 << 16).decode()
            if line.endswith("\n"):
                folder, self.process, processes = json.loads(line)
                self.folder = Path(folder)
                self.peers = [Peer(i) for i in range(processes) if i != self.process]

    def _look(self) -> None:
        now = time.monotonic()
        # A longer time was no silence of theirs: this process was stopped.
        passed = min(now - self.looked, 2 * self.interval)
        self.looked = now
        if self.folder is not None:
            self._beat(None)
            for peer in self.peers:
                peer.look(self.folder / str(peer.number), passed)

    def _beat(self, ended: int | None) -> None:
        self.beats += 1
        said = {
            "process": self.process,
            "host": platform.node(),
            "pid": self.child,
            "beat": self.beats,
            "ended": ended,
        }
        if self.folder is not None:
            with contextlib.suppress(OSError):  # the others will judge
                handle = os.open(self.folder / str(self.process), os.O_WRONLY)
                try:
                    os.pwrite(handle, json.dumps(said).ljust(SIZE).encode(), 0)
                finally:
                    os.close(handle)  # what is closed is what others see on a network file system

    def _gone(self) -> Peer | None:
        """A process that failed by itself, else one that is silent."""
        failed = [peer for peer in self.peers if (peer.said.get("ended") or 0) not in (*ORDERLY, PEER_LOST)]
        silent = [
            peer for peer in self.peers if peer.said.get("ended") is None and peer.silent > self.lost_after
        ]
        return next(iter(failed + silent), None)

    def _finish(self, status: int) -> NoReturn:
        """Ends as the child did; where another process's loss was the cause, names that one."""
        code = of_signal(-status) if status < 0 else status
        if code not in ORDERLY and self.folder is not None:
            self._look()
            until = time.monotonic() + self.lost_after + 2 * self.interval
            caused_by_loss = code in (PEER_LOST, ABORTED)  # a collective failed, or JAX has ended it
            while caused_by_loss and self._gone() is None and time.monotonic() < until:
                time.sleep(self.interval)
                self._look()
            gone = self._gone()
            if gone is not None and gone.said.get("ended") != code:
                said = gone.said.get("ended")
                how = f"has given no sign of life for {gone.silent:.0f} s" if said is None else _how(said)
                with contextlib.suppress(OSError, ValueError):  # what cannot be printed changes no status
                    print(
                        f"error: {gone.name} {how}, so process {self.process} stops too; the same command, "
                        "given to all, goes on from the newest checkpoint",
                        file=sys.stderr,
                        flush=True,
                    )
                code = PEER_LOST
        self._beat(code)
        if code in ORDERLY and self.process == 0 and self.folder is not None:
            shutil.rmtree(self.folder.parent, ignore_errors=True)
        os._exit(code)

    def _signal(self, number: int) -> None:
        if self.ended is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child, number)

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._reap(GRACE)


def _how(status: int) -> str:
    if status > 128:
        return f"was ended by {signal.Signals(status - 128).name}"
    return f"failed with status {status}"
