"""A run without progress ends with the stacks of its threads, so that a scheduler can start it again."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator

from jaxmodels.launch.exit_statuses import STALLED


class Watchdog:
    """Ends the process where no step completes for a number of seconds; 0 never does.

    Only time in the loop over steps counts, the wait for input included. Compilation, evaluation and saving
    are `paused`: how long these may take says nothing about a step.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._waiting = False
        self._idle = 0.0  # seconds
        self._paused = 0
        self._over = threading.Event()

    def __enter__(self) -> Watchdog:
        if self.seconds:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def progress(self) -> None:
        """A step has completed, or the first is awaited."""
        self._idle, self._waiting = 0.0, True

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Does not count what is no step."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1
            self._idle = 0.0

    def _watch(self) -> None:
        every = min(1.0, self.seconds / 10)
        before = time.monotonic()
        while not self._over.wait(every):
            now = time.monotonic()
            if self._waiting and not self._paused:
                self._idle += min(now - before, 2 * every)  # more was no stall: the whole process was stopped
                if self._idle > self.seconds:
                    self._end()
            before = now

    def _end(self) -> None:
        try:
            with contextlib.suppress(
                OSError, ValueError, AttributeError
            ):  # what cannot be printed ends nothing
                print(
                    f"error: got no completed step for {self.seconds:g} s; expected one within "
                    "--stall-after. "
                    "The stack of every thread follows:",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(sys.stderr.fileno(), all_threads=True)
        finally:
            os._exit(STALLED)
