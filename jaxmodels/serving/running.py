"""One request that the engine works on: its tokens, its text, and what of both has been sent."""

from __future__ import annotations

import time
from typing import Any

from jaxmodels.decoding.text import ending, reader, settled
from jaxmodels.interfaces import Decoder
from jaxmodels.serving.metrics import Metrics
from jaxmodels.serving.request import Piece, Request, Stream


class Running:
    """A request from its submission to its last piece."""

    def __init__(self, request: Request, decoder: Decoder, *, adapter: int, matcher: Any, room: int):
        """adapter: its index. matcher: of the schema, or None. room: tokens that the context takes yet."""
        self.request, self.adapter, self.matcher = request, adapter, matcher
        self.limit = min(request.options.tokens, room)
        self.stream = Stream(self.cancel)
        self.cancelled = False
        self.read = 0  # tokens of the prompt in the cache
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.finish: str | None = None
        self._ends = decoder.ends
        prompt = request.tokens[1:] if request.tokens[0] == decoder.begin else request.tokens
        self._reader = reader(decoder, prompt)
        self._text, self._shown, self._sent = "", 0, 0
        self.submitted = self._last = time.monotonic()

    def cancel(self) -> None:
        """Asks for the end."""
        self.cancelled = True

    @property
    def prompt_left(self) -> int:
        """Tokens of the prompt that have not been read."""
        return len(self.request.tokens) - self.read

    @property
    def length(self) -> int:
        """Tokens in the cache once the prompt is read: all but the last."""
        return len(self.request.tokens) + max(0, len(self.tokens) - 1)

    @property
    def left(self) -> int:
        """Tokens that the text may still get."""
        return self.limit - len(self.tokens)

    def add(self, tokens: list[int], logprobs: list[float], metrics: Metrics) -> None:
        """Takes the tokens of a burst and sends what is settled."""
        first = len(self.tokens) + 1
        at = next((i for i, token in enumerate(tokens) if token in self._ends), None)
        if at is not None:
            tokens, logprobs, self.finish = tokens[:at], logprobs[:at], "stop"
        if self.matcher is not None and self.finish is None and tokens:
            (token,) = tokens  # its burst is one step
            followed = self.matcher.add(token)
            if followed == "failed":
                tokens, logprobs = [], []
            self.finish = {"failed": "error", "complete": "stop"}.get(followed)
        self.tokens += tokens
        self.logprobs += logprobs
        self._text = self._reader(self.tokens)
        if (cut := ending(self._reader, self.tokens, first, self.request.stop)) is not None:
            self._text, count = cut
            del self.tokens[count:], self.logprobs[count:]
            self.finish = "stop"
        elif self.finish is None and self.left < 1:
            self.finish = "length"
        metrics.add("tokens_out_total", len(tokens))
        now = time.monotonic()
        if first == 1:
            metrics.observe("time_to_first_token_seconds", now - self.submitted)
        elif tokens:
            metrics.observe("time_between_tokens_seconds", (now - self._last) / len(tokens), len(tokens))
        self._last = now
        self._send()
        if self.finish is not None:
            self._ended(metrics)

    def _send(self) -> None:
        stop = self.request.stop
        text, count = self._text, len(self.tokens)
        if self.finish is None:
            text = settled(text, stop)
            while stop and count > self._sent and len(self._reader(self.tokens[:count])) > len(text):
                count -= 1  # of what may become a stop string, tokens wait as their text does
        new = slice(self._sent, max(count, self._sent))
        piece = Piece(text[self._shown :], self.tokens[new], self.logprobs[new], self.finish)
        self._shown, self._sent = max(self._shown, len(text)), new.stop
        if piece.text or piece.tokens or piece.finish:
            self.stream.put(piece)

    def end(self, finish: str, metrics: Metrics) -> None:
        """Ends the text as it is, with all of it sent."""
        if self.finish is None:
            self.finish = finish
            self._send()
            self._ended(metrics)

    def _ended(self, metrics: Metrics) -> None:
        metrics.add(f"requests_{self.finish}_total")
        metrics.observe("request_seconds", time.monotonic() - self.submitted)
