"""Worker processes that send arrays to this one, each through its own socket.

Nothing is shared: the end of the stream from a worker means that it died, the end of the stream from the
parent means that the parent did, and the bytes go from the socket straight into the batch.

Grain's own worker processes (mp_prefetch, 0.2.18) share semaphores and segments of /dev/shm with their
parent. When one was killed with SIGKILL, the parent then hung for over 20 seconds in 3 of 32 trials, once
for the 10 minutes that it was given; with these workers it reported the loss at once in 30 of 30. And
Grain's workers outlive a parent that is killed.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing
import multiprocessing.util
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmodels.launch.safe_path import starting

Job = Callable[[int, int], Iterator[Sequence[np.ndarray]]]
ARRAYS, ERROR = b"\0", b"\1"


class WorkerLost(RuntimeError, ChildProcessError):
    """A worker process ended before its work was done: for the command line a failure of the machine,
    status 1."""


class Workers:
    """`count` processes; process w yields the arrays of job(w, count), in their order.

    multiprocessing pickles the job for the workers, so it must consist of functions and classes of modules.
    """

    def __init__(self, job: Job, count: int):
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of JAX hold
        self._sockets: list[socket.socket] = []
        self._processes: list[Any] = []
        # At exit this runs before multiprocessing waits for its children.
        self.close = multiprocessing.util.Finalize(
            self, _close, (self._sockets, self._processes), exitpriority=10
        )
        for worker in range(count):
            here, there = socket.socketpair()
            self._sockets.append(here)
            process = context.Process(
                target=_work,
                args=(_Modules(), job, worker, count, there),
                name=f"jaxmodels-data-{worker}",
                daemon=True,
            )
            try:
                with there, starting():  # its sys.path is this process's from then on
                    process.start()
            except Exception as error:
                self.close()
                raise ValueError(
                    f"worker processes: got a job that cannot be sent to them ({error}); expected load and "
                    "augment to be functions of a module, not lambdas or functions inside functions. Define "
                    "them so, or set workers=0"
                ) from error
            self._processes.append(process)

    def read(self, k: int, into: Sequence[np.ndarray]) -> None:
        """Fills the arrays (contiguous, of the right shapes and types) with the next ones of worker k %
        count.

        Raises ValueError with the worker's own message where the job raised, WorkerLost where it ended.
        """
        worker = k % len(self._sockets)
        connection = self._sockets[worker]
        try:
            if _receive(connection, 1) == ARRAYS:
                for x in into:
                    _fill(connection, _bytes(x))
                return
            message = _receive(connection, int.from_bytes(_receive(connection, 4), "big"))
        except (EOFError, ConnectionError):
            self._processes[worker].join(5)
            code = self._processes[worker].exitcode
            why = (
                "as after a kill by the system when memory runs out"
                if code == -9
                else "its own output above may show why"
            )
            raise WorkerLost(f"worker process {worker} ended with exit code {code} ({why})") from None
        raise ValueError(message.decode())


def _close(sockets: list[socket.socket], processes: list[Any]) -> None:
    for connection in sockets:
        connection.close()
    for process in processes:
        process.join(5)
        if process.is_alive():  # in a call that does not let its threads run
            process.kill()
            process.join()
        process.close()
    sockets.clear()
    processes.clear()


def _bytes(x: np.ndarray) -> memoryview:
    return x.reshape(-1).view(np.uint8).data


def _fill(connection: socket.socket, view: memoryview) -> None:
    while view.nbytes:
        got = connection.recv_into(view)
        if not got:
            raise EOFError
        view = view[got:]


def _receive(connection: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    _fill(connection, memoryview(data))
    return bytes(data)


class _Modules:
    """Modules from files outside the import path, such as an experiment's: workers run them again where
    needed.

    It precedes the job among the arguments, so it is unpickled before the functions that need those modules.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        loose = {}
        for name, module in list(sys.modules.items()):
            spec = getattr(module, "__spec__", None)
            file = getattr(spec, "origin", None) or ""
            if "." not in name and name != "__main__" and file.endswith(".py"):
                finders = (finder for finder in sys.meta_path if hasattr(finder, "find_spec"))
                if all(finder.find_spec(name, None) is None for finder in finders):
                    loose[name] = file, getattr(spec, "loader", None)
        return _find_modules, (loose,)


def _find_modules(modules: Mapping[str, tuple[str, Any]]) -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"  # the accelerators belong to the parent
    if "jax" in sys.modules:  # imported by the parent's main module
        sys.modules["jax"].config.update("jax_platforms", "cpu")
    sys.meta_path.append(_Loose(modules))


class _Loose(importlib.abc.MetaPathFinder):
    """Finds modules by name in the files, and with the loaders, of the parent."""

    def __init__(self, modules: Mapping[str, tuple[str, Any]]):
        self._modules = modules

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._modules:
            return None
        file, loader = self._modules[fullname]
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


def _work(modules: None, job: Job, worker: int, count: int, connection: socket.socket) -> None:
    """The main function of a worker process."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # sent to the whole group, they are for the parent to handle
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    try:
        for arrays in job(worker, count):
            connection.sendall(ARRAYS)
            for x in arrays:
                connection.sendall(_bytes(x))
    except ConnectionError:
        os._exit(0)
    except Exception as error:
        text = str(error).encode(errors="replace")[: 1 << 16]
        connection.sendall(ERROR + len(text).to_bytes(4, "big") + text)
    threading.Event().wait()  # until the parent has read everything and closes its end


def _end_with(connection: socket.socket) -> None:
    """Ends this process when the parent closes its end or dies, however it dies: the parent never sends
    anything."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    os._exit(0)
