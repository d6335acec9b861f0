"""A connection of the server, which must send the head of each request in time."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 10.0  # in which a head must arrive, from its first byte or from the connection


class Connection(H11Protocol):
    """Uvicorn's, closed where a head does not come: many that never send theirs would take all places."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Starts the time of the first head; as asyncio calls it."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Ends the time where the head is whole, and starts that of the next."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._wait()
        else:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the time."""
        self._end()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._head is None:
            self._head = asyncio.get_running_loop().call_later(SECONDS, self.transport.close)

    def _end(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None
