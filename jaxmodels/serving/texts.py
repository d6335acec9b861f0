"""The texts of one request while the engine writes them: submitted, read and cancelled together."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from typing import Any

from jaxmodels.serving.generation_request import Asked
from jaxmodels.serving.refused import Refused
from jaxmodels.serving.request import Full, Piece
from jaxmodels.serving.served import Served
from jaxmodels.serving.service import Service


class Texts:
    """One stream of the engine for each text that a request asks for."""

    def __init__(self, service: Service, served: Served, asked: Asked):
        self._service, self._served, self._asked = service, served, asked
        self._streams: list[Any] = []
        self._lock, self._cancelled = threading.Lock(), False
        self._began = time.monotonic()
        self.count = len(asked.requests)
        self.tokens = 0  # of the texts so far

    async def submit(self) -> None:
        """Gives all texts to the engine, or none: a Refused says that its queue is full."""
        try:
            await self._service.read(self._submit)
        except Full as full:
            self.cancel()
            raise Refused(
                f"got a request while {self._service.limits.queue} wait; expected fewer at a time. Ask again "
                "after the seconds of Retry-After",
                status=503 if self._service.draining else 429,
                code="queue_full",
                retry_after=full.retry_after,
            ) from None
        except ValueError as error:
            self.cancel()
            field = "response_format" if self._asked.requests[0].schema is not None else None
            raise Refused(str(error), field=field) from None

    def _submit(self) -> None:
        for request in self._asked.requests:
            stream = self._served.engine.submit(request)
            with self._lock:
                self._streams.append(stream)
                if self._cancelled:  # the client hung up meanwhile
                    stream.cancel()
                    return

    def cancel(self) -> None:
        """Frees the slots of the texts that have not ended."""
        with self._lock:
            self._cancelled = True
            for stream in self._streams:
                stream.cancel()

    async def pieces(self) -> AsyncGenerator[tuple[int, Piece], None]:
        """(index of the text, its next piece) as they come, until all have ended or their time is up.

        A text whose time is up ends as if its tokens were used up: with finish "length".
        """
        queue: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        readers = [asyncio.create_task(self._read(index, queue)) for index in range(self.count)]
        running = set(range(self.count))
        try:
            while running:
                index, piece = await asyncio.wait_for(queue.get(), self._left())
                self._check(piece)
                if piece.finish is not None:
                    running.remove(index)
                yield index, piece
        except TimeoutError:
            if not self.tokens:
                raise Refused(
                    f"got no text within {self._service.limits.seconds:g} seconds; expected a server with "
                    "less to do. Ask again later",
                    status=503,
                    code="timeout",
                    retry_after=10,
                ) from None
            for index in sorted(running):
                yield index, Piece("", [], [], "length")
        finally:
            self.cancel()
            for reader in readers:
                reader.cancel()

    def _left(self) -> float:
        return self._service.limits.seconds - (time.monotonic() - self._began)

    async def _read(self, index: int, queue: asyncio.Queue[tuple[int, Piece]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            piece = await loop.run_in_executor(self._service.waiters, self._streams[index].get)
            self.tokens += len(piece.tokens)
            await queue.put((index, piece))
            if piece.finish is not None:
                return

    def _check(self, piece: Piece) -> None:
        if piece.finish == "error":
            raise Refused("the server failed to write this text; its log says why. Ask again", status=500)
        if piece.finish == "cancelled":
            raise Refused(
                "the server is ending; expected one that stays. Ask another", status=503, retry_after=10
            )
