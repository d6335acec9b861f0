"""An engine without a model: it writes the prompt's own tokens again, one after another."""

from __future__ import annotations

import threading

from jaxmodels.serving.request import Full, Piece, Stream


class EchoEngine:
    """Each slot is a thread. hold: an event that a text waits for before each token, or after `free` of them.

    A text with an adapter is in capital letters.
    """

    def __init__(self, decoder, *, slots=2, queue=2, hold=None, free=0):
        self.capacity = decoder.length
        self.decoder, self.slots, self.queue, self.hold = decoder, slots, queue, hold
        self.free = free
        self.running = self.cancelled = 0
        self.lock = threading.Lock()
        self.closed = False

    def submit(self, request):
        with self.lock:
            if self.closed or self.running >= self.slots + self.queue:
                raise Full("no room", 2.0)
            self.running += 1
        ended = threading.Event()
        stream = Stream(ended.set)
        threading.Thread(target=self._write, args=(request, stream, ended), daemon=True).start()
        return stream

    def _write(self, request, stream, ended):
        tokens = [request.tokens[n % len(request.tokens)] for n in range(request.options.tokens)]
        finish = "length"
        for n, token in enumerate(tokens):
            while (
                self.hold is not None and n >= self.free and not self.hold.wait(0.01) and not ended.is_set()
            ):
                pass
            if ended.is_set():
                finish = "cancelled"
                break
            text = self.decoder.decode([token])
            stream.put(Piece(text.upper() if request.adapter else text, [token], [-0.5]))
        with self.lock:
            self.running -= 1
            self.cancelled += finish == "cancelled"
        stream.put(Piece("", [], [], finish))

    def metrics(self):
        waits = {f"queue_seconds_{name}_total": n for name, n in (("le_5ms", 1), ("le_2500ms", 3))}
        waits |= {"queue_seconds_sum_total": 4.5, "queue_seconds_count_total": 4}
        return {"slots": self.slots, "slots_used": self.running, "tokens_out_total": 7, **waits}

    def close(self, drain=True, timeout=None):
        self.closed = True
