"""The server: a socket, models behind an application, and an end that lets what runs come to its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvicorn

from jaxmodels.launch.exit_statuses import FAILED
from jaxmodels.serving.app import make_app
from jaxmodels.serving.connection import Connection
from jaxmodels.serving.guard import is_loopback
from jaxmodels.serving.limits import Limits
from jaxmodels.serving.served import Served
from jaxmodels.serving.service import Service

DRAIN = 30.0  # seconds in which what runs may end
BACKLOG = 128  # connections that the system holds
CONNECTIONS = 1_000
FORCED = 5  # seconds after which what does not end is cancelled
IDLE = 10  # seconds after which a connection without a request is closed


class PortTaken(ValueError):
    """The address cannot be listened to."""

    exit_status = FAILED


def listen(host: str, port: int) -> socket.socket:
    """A socket that holds the address, so that what is wrong with it is said before models are loaded."""
    try:
        [(family, _, _, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        raise PortTaken(
            f"--host: got {host!r}, which has no address ({error}); expected a name or an address of this "
            "computer. Change --host"
        ) from None
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG)  # Linux refuses a port that is taken only here, where both may be reused
    except OSError as error:
        found.close()
        taken = error.errno == errno.EADDRINUSE
        what = "which another program listens to" if taken else f"which cannot be had ({error.strerror})"
        raise PortTaken(
            f"--port: got {port} on {host}, {what}; expected a free one. Give another --port; 0 takes any"
        ) from None
    return found


def url_of(found: socket.socket) -> str:
    """The address as a browser takes it."""
    host, port = found.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server:
    """Serves models on a socket until `end` is called, or a signal comes and `run` is in the main thread."""

    def __init__(
        self,
        models: Sequence[Served],
        listening: socket.socket,
        *,
        limits: Limits,
        slots: int,
        key: str = "",
        drain: float = DRAIN,
    ):
        self._socket, self._drain = listening, drain
        self.url = url_of(listening)
        self.service = Service(models, limits, slots)
        loopback = is_loopback(listening.getsockname()[0])
        config = uvicorn.Config(
            make_app(self.service, key=key, loopback=loopback),
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=IDLE,
            timeout_graceful_shutdown=FORCED,
        )
        self._server = _Uvicorn(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.ready = threading.Event()

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Serves until the end. started() is called when requests are taken."""
        asyncio.run(self._run(started))

    @property
    def requests(self) -> int:
        """How many have been answered."""
        return self._server.server_state.total_requests

    def end(self) -> None:
        """Refuses new requests, and ends when those that run have ended; called again, at once."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end)

    async def _run(self, started: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending: asyncio.Task[None] | None = None
        with self._signals():
            serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
            while not self._server.started and not serving.done():
                await asyncio.sleep(0.01)
            self.ready.set()
            if not serving.done():
                started()
            await serving
        for served in self.service.models.values():
            if served.engine is not None:
                served.engine.close(drain=False, timeout=5.0)
        self.service.close()

    def _end(self) -> None:
        if self._ending is not None:  # asked twice
            self._server.should_exit = self._server.force_exit = True
            return
        self.service.draining = True
        self._ending = asyncio.get_running_loop().create_task(self._drained())

    async def _drained(self) -> None:
        """Waits for what runs, then stops; what has not ended in time is cancelled."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain):
                while self.service.active:
                    await asyncio.sleep(0.02)
        self._server.should_exit = True
        self._server.force_exit = bool(self.service.active)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C end the server in order, where this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def handle(number: int, frame: Any) -> None:
            self.end()

        for number in before:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its own handling of signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals as they are."""
        yield
