"""The log: values to the trackers, without training ever waiting for one.

A tracker is a function of (step, values). Each runs in a thread of its own; one that fails is named and left
out from then on, and training goes on.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jaxmodels.runs.metrics_file import Tracker, finite


class History:
    """What was logged, in memory, as metrics.jsonl has it; `before`: the lines of earlier starts."""

    def __init__(self, before: Iterable[Mapping[str, Any]] = ()):
        self.lines: list[dict[str, Any]] = [dict(line) for line in before]

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line at once, so that whoever ends finds all of them."""
        self.lines.append(finite({"step": step, **values}))


class Log:
    """Hands values to the trackers in the background, in order; a slow tracker keeps no other waiting.

    history: at once.
    """

    def __init__(
        self, trackers: Sequence[Tracker], warn: Callable[[str], None], history: History | None = None
    ):
        self._warn = warn
        self._history = history
        self._queues: list[queue.Queue] = [queue.Queue() for _ in trackers]
        self._threads = [
            threading.Thread(target=self._work, args=pair, name=f"tracker {_name(pair[0])}", daemon=True)
            for pair in zip(trackers, self._queues, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Returns at once."""
        if self._history is not None:
            self._history(step, values)
        for waiting in self._queues:
            waiting.put((step, dict(values)))

    def _work(self, tracker: Tracker, waiting: queue.Queue) -> None:
        failed = False
        while (item := waiting.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            try:
                if not failed:
                    tracker(*item)
            except Exception as error:
                failed = True
                with contextlib.suppress(Exception):  # a message that cannot be given ends nothing
                    self._warn(
                        f"tracker {_name(tracker)} failed at step {item[0]} and is left out from now on: "
                        f"{error}"
                    )

    def flush_first(self) -> None:
        """Returns when the first tracker has had everything so far.

        Raises OSError where its thread has ended.
        """
        for waiting, thread in zip(self._queues[:1], self._threads, strict=False):
            reached = threading.Event()
            waiting.put(reached)
            while not reached.wait(0.1):
                if not thread.is_alive() and not reached.is_set():
                    raise OSError(
                        f"the thread {thread.name} has ended, so the log stops here. Give the same command "
                        "again, to go on from the newest checkpoint"
                    )

    def close(self, patience: float = 60.0) -> None:
        """Ends the threads when they have handed on everything.

        Whatever hangs for `patience` seconds is left behind.
        """
        for waiting in self._queues:
            waiting.put(None)
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                self._warn(
                    f"{thread.name} has not taken its values within {patience:g} s; the rest of them are "
                    "lost to it"
                )


def _name(tracker: Tracker) -> str:
    return getattr(tracker, "__qualname__", repr(tracker)).split(".")[-1]
