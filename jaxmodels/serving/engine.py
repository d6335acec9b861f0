"""Continuous batching: requests join and leave between bursts, and each gets the text that it gets alone.

    submit ──► queue ──► read, a chunk a turn ──► slot ──burst──► pieces ──burst──► … ──► slot free

One thread does all the work, in turns: take what was submitted, read at most a chunk of prompts, write one
burst in every slot that has a text. The cache has one row for each slot and is updated in place. All programs
are compiled at the start (see jaxmodels.serving.programs).

A text is the one that jaxmodels.decoding.generate gives for the same seed, whatever runs beside it, up to the
rounding of logits. It differs where the context is full: here the text ends with "length".
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from jaxmodels import keys
from jaxmodels.interfaces import Decoder
from jaxmodels.serving import threads
from jaxmodels.serving.device import Device
from jaxmodels.serving.drafts import Draft
from jaxmodels.serving.metrics import Metrics, count_compilations
from jaxmodels.serving.request import Full, Request, Stream
from jaxmodels.serving.running import Running
from jaxmodels.serving.schema import Schemas

IDLE = 0.5  # seconds until an engine without work looks for cancelled requests


class Engine:
    """Writes texts for many requests at once. Its methods may be called from any thread.

    decoder, params, extra: the model, as for jaxmodels.decoding.generate. slots: texts at once. queue:
    requests that may wait. capacity: tokens of a prompt with its text, at most; None is the model's length,
    at most 2,048. chunk: tokens of prompts that are read between two bursts. burst: steps between two looks
    at the texts. lookup: tokens that each step drafts from the text itself; draft: a model that drafts them.
    adapters: the names of the model's LoRA adapters, in the order of their indices from 1 (see
    jaxmodels.decoding.adapters). prefixes: bytes for the shared beginnings of prompts. warn(text) is called
    once for what goes wrong inside.
    """

    def __init__(
        self,
        decoder: Decoder,
        params: Any,
        extra: Any,
        *,
        slots: int = 8,
        queue: int = 64,
        capacity: int | None = None,
        chunk: int = 96,
        burst: int = 4,
        lookup: int = 0,
        draft: Draft | None = None,
        adapters: Sequence[str] | None = None,
        prefixes: int = 1 << 28,
        warn: Callable[[str], None] = print,
    ):
        for name, value, least in (
            *(("slots", slots, 1), ("queue", queue, 1), ("chunk", chunk, 1), ("burst", burst, 1)),
            *(("lookup", lookup, 0), ("capacity", 2 if capacity is None else capacity, 2)),
        ):
            if value < least:
                raise ValueError(f"Engine: got {name}={value}; expected at least {least}. Change {name}.")
        capacity = min(decoder.length, 2048) if capacity is None else capacity
        if capacity > decoder.length:
            raise ValueError(
                f"Engine: got a capacity of {capacity} tokens; expected at most the model's "
                f"{decoder.length}. Make it smaller."
            )
        self._device = Device(
            decoder,
            params,
            extra,
            slots=slots,
            capacity=capacity,
            chunk=min(chunk, capacity),
            burst=burst,
            lookup=lookup,
            draft=draft,
            adapters=adapters is not None,
            prefixes=prefixes,
        )
        self._decoder, self.capacity, self._queue, self._warn = decoder, capacity, queue, warn
        self._adapters = {name: n for n, name in enumerate(adapters or (), 1)}
        self._schemas: Schemas | None = None
        self._making_schemas = threading.Lock()
        self._metrics = Metrics()
        self._changed = threading.Condition()
        self._waiting: deque[Running] = deque()
        self._reading: list[tuple[Running, int]] = []  # with the slot that it will have
        self._slots: list[Running | None] = [None] * slots
        self._turn = 0
        self._closed = False
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # Any thread

    def start(self) -> None:
        """Compiles all programs, keeps XLA's threads apart (see jaxmodels.serving.threads), then runs."""
        self._device.compile()
        threads.pin()
        self._thread.start()

    def submit(self, request: Request) -> Stream:
        """The stream of a request's text. Full where the queue is; ValueError for what can never run."""
        running = self._running(request)
        with self._changed:
            if self._closed:
                raise Full("the engine is closed and takes no more requests")
            if len(self._waiting) >= self._queue:
                busy = self._metrics.mean("request_seconds") * len(self._waiting) / len(self._slots)
                raise Full(f"{self._queue} requests wait already", retry_after=max(1.0, busy))
            self._waiting.append(running)
            self._changed.notify()
        return running.stream

    def close(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """Takes no more requests and ends. drain: after those that run or wait, for at most timeout seconds;
        what has not ended then is cancelled.
        """
        with self._changed:
            self._closed = True
            self._stop = self._stop or not drain
            self._changed.notify()
            if not self._thread.is_alive():
                self._end_all("cancelled")  # it was never started
                return
        self._thread.join(timeout)
        with self._changed:
            self._stop = True
            self._changed.notify()
        self._thread.join(timeout)

    def metrics(self) -> dict[str, float]:
        """Counters (…_total), histograms in seconds, and what is the case now."""
        found = self._metrics.values()
        accepted, drafted = found.get("accepted_tokens_total", 0.0), found.get("drafted_tokens_total", 0.0)
        return {
            **found,
            "queue": float(len(self._waiting)),
            "slots": float(len(self._slots)),
            "slots_used": float(sum(x is not None for x in self._slots) + len(self._reading)),
            "prefix_bytes": float(self._device.prefixes.used),
            "accepted_share": accepted / drafted if drafted else 0.0,
        }

    def _running(self, request: Request) -> Running:
        options, n, V = request.options, len(request.tokens), self._device.vocabulary
        options.check()
        keys.words(options.seed)
        if not n:
            raise ValueError("Engine: got a prompt without a token; expected one at least. Give a prompt.")
        if n >= self.capacity:
            raise ValueError(
                f"Engine: got a prompt of {n} tokens; expected fewer than {self.capacity}, the capacity of a "
                "slot. Shorten the prompt."
            )
        wrong = next((token for token in request.tokens if not 0 <= token < V), None)
        if wrong is not None:
            raise ValueError(
                f"Engine: got token {wrong}; expected tokens from 0 to {V - 1}. Change the prompt."
            )
        if "" in request.stop:
            raise ValueError(
                "Engine: got an empty stop string, with which every text begins; expected at least one "
                "character. Leave it out."
            )
        if request.adapter is not None and request.adapter not in self._adapters:
            known = ", ".join(self._adapters) or "none"
            raise ValueError(
                f"Engine: got adapter {request.adapter!r}; expected one of: {known}. Choose one, or none."
            )
        adapter = 0 if request.adapter is None else self._adapters[request.adapter]
        matcher = None if request.schema is None else self._matcher(request.schema)
        # The last token of a text is never put into the cache.
        room = self.capacity - n + 1
        return Running(request, self._decoder, adapter=adapter, matcher=matcher, room=room)

    def _matcher(self, schema: str) -> Any:
        with self._making_schemas:
            if self._schemas is None:
                self._schemas = Schemas(self._decoder, self._device.vocabulary)
        return self._schemas.matcher(schema)

    # The engine's thread

    def _run(self) -> None:
        count_compilations(self._metrics)
        while True:
            with self._changed:
                if not (self._waiting or self._reading or any(self._slots)):
                    if self._closed:
                        return
                    self._changed.wait(IDLE)
                if self._stop:
                    self._end_all("cancelled")
                    return
            try:
                self._take_turn()
            except Exception as error:  # a server goes on: what ran is lost, what comes is answered
                self._warn(f"engine: {type(error).__name__}: {error}; the texts that ran have ended")
                with self._changed:
                    self._end_all("error", waiting=False)
                try:
                    self._device.reset()
                except Exception as broken:
                    self._warn(f"engine: {type(broken).__name__}: {broken}; it is closed")
                    with self._changed:
                        self._closed = True
                        self._end_all("error")
                    return

    def _end_all(self, finish: str, *, waiting: bool = True) -> None:
        found = [*(x for x in self._slots if x), *(x for x, _ in self._reading)]
        if waiting:
            found += self._waiting
            self._waiting.clear()
        for running in found:
            running.end(finish, self._metrics)
        self._slots = [None] * len(self._slots)
        self._reading.clear()

    def _take_turn(self) -> None:
        self._turn += 1
        self._drop_cancelled()
        self._admit()
        self._read()
        if self._waiting and self._few():
            self._admit()  # who came meanwhile does not wait for a burst
            self._read()
        if any(self._slots):
            self._burst()

    def _few(self) -> bool:
        """Whether fewer than half of the slots write."""
        return 2 * sum(x is None for x in self._slots) > len(self._slots)

    def _drop_cancelled(self) -> None:
        with self._changed:
            for running in [x for x in self._waiting if x.cancelled]:
                self._waiting.remove(running)
                running.end("cancelled", self._metrics)
        for running, slot in [x for x in self._reading if x[0].cancelled]:
            self._reading.remove((running, slot))
            self._device.drop(slot)
            running.end("cancelled", self._metrics)
        for slot, active in enumerate(self._slots):
            if active is not None and active.cancelled:
                self._slots[slot] = None
                active.end("cancelled", self._metrics)

    def _admit(self) -> None:
        """Gives free slots to those who wait; what is known of their prompts is there at once."""
        reserved = {slot for _, slot in self._reading}
        free = [slot for slot, x in enumerate(self._slots) if x is None and slot not in reserved]
        while free:
            with self._changed:
                if not self._waiting:
                    return
                running = self._waiting.popleft()
            slot = free.pop(0)
            self._metrics.observe("queue_seconds", time.monotonic() - running.submitted)
            self._reading.append((running, slot))
            running.read = self._device.begin(slot, running.request.tokens, running.adapter)
            self._metrics.add("tokens_in_total", len(running.request.tokens))
            self._metrics.add("prefix_tokens_shared_total", running.read)

    def _read(self) -> None:
        """Reads a chunk of prompts: by turns of the one with the least left to read, and of the oldest.

        Several chunks where few texts wait for it: one a prompt while fewer than half of the slots write.
        """
        idle = sum(x is None for x in self._slots)
        chunks = min(len(self._reading), idle) if self._few() else 1
        budget = self._device.chunk * max(chunks, 1 + idle // 4)
        while self._reading and budget > 0:
            shortest = min(self._reading, key=lambda x: x[0].prompt_left)
            running, slot = shortest if self._turn % 2 else self._reading[0]
            count = self._device.read(slot, running.request.tokens, running.read, running.adapter)
            running.read += count
            budget -= count
            if not running.prompt_left:
                self._reading.remove((running, slot))
                self._slots[slot] = running
                self._give(slot, *self._device.admit(slot, running))

    def _burst(self) -> None:
        """Half a burst while a slot is free, so that who comes waits less."""
        most = self._device.burst_steps
        written = self._device.burst(self._slots, -(-most // 2) if None in self._slots else most)
        for slot, running in enumerate(self._slots):
            if running is not None and (count := int(written.count_B[slot])):
                self._give(
                    slot,
                    written.tokens_BN[slot, :count].tolist(),
                    written.logprobs_BN[slot, :count].tolist(),
                )
        self._metrics.add("accepted_tokens_total", int(written.accepted))
        self._metrics.add("drafted_tokens_total", int(written.drafted))

    def _give(self, slot: int, tokens: list[int], logprobs: list[float]) -> None:
        running = self._slots[slot]
        assert running is not None
        try:
            running.add(tokens, logprobs, self._metrics)
        except Exception as error:  # such as a tokenizer that does not know the token: the others go on
            self._warn(f"engine: {type(error).__name__}: {error}; one text has ended")
            running.end("error", self._metrics)
        if running.finish is not None:
            self._slots[slot] = None
