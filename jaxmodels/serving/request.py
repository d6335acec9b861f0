"""What is asked of the engine and what comes back: a request, the pieces of its text, and their stream."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import NamedTuple

from jaxmodels.decoding.sample import SamplingOptions


class Request(NamedTuple):
    """A text to continue.

    tokens: the prompt with its begin token; never empty. stop: strings that end the text and are not part of
    it. adapter: the name of a LoRA adapter; None is the model itself. schema: a JSON schema, as text, that
    the output follows; options.tokens may cut it off.
    """

    tokens: tuple[int, ...]
    options: SamplingOptions = SamplingOptions()
    stop: tuple[str, ...] = ()
    adapter: str | None = None
    schema: str | None = None


class Piece(NamedTuple):
    """The next part of a text.

    text: what is settled: no half characters, no beginning of a stop string. tokens, logprobs: new tokens of
    the text and their log-probabilities under the model; their text may come with a later piece. Tokens of a
    stop string are not among those of a text that it ended, unless they were sent before it was complete.
    finish: None while the text goes on; "stop" (the end token, a stop string or a complete schema), "length",
    "cancelled" or "error" in the last piece.
    """

    text: str
    tokens: list[int]
    logprobs: list[float]
    finish: str | None = None


class Full(Exception):
    """The queue is full, or the engine is closed; retry_after: seconds after which to ask again."""

    def __init__(self, message: str, retry_after: float = 1.0):
        super().__init__(message)
        self.retry_after = retry_after


class Stream:
    """The pieces of one request as they come; iterating waits for each. The last one has a finish."""

    def __init__(self, cancelled: Callable[[], None] = lambda: None):
        """cancelled() is called by cancel."""
        self._pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        self._cancelled = cancelled
        self._ended = False

    def put(self, piece: Piece) -> None:
        """Adds a piece; for the engine."""
        self._pieces.put(piece)

    def get(self, timeout: float | None = None) -> Piece:
        """The next piece. TimeoutError after so many seconds without one; StopIteration after the last."""
        if self._ended:
            raise StopIteration
        try:
            piece = self._pieces.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"no piece of the text within {timeout} seconds") from None
        self._ended = piece.finish is not None
        return piece

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        return self.get()

    def cancel(self) -> None:
        """Ends the text, which frees its slot after the present burst; the last piece says "cancelled"."""
        self._cancelled()
