"""The time that training takes, without what is paused: compilation, evaluation, checkpoints."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from jaxmodels.training.watchdog import Watchdog


class Clock:
    """Seconds and steps of training in this process.

    The watchdog, where there is one, counts the same time.
    """

    def __init__(self, watchdog: Watchdog | None = None):
        self.watchdog = watchdog or Watchdog(0)
        self.seconds = 0.0
        self.steps = 0
        self._since: float | None = None  # when the time began that is not yet counted
        self._pausing = False

    def start(self) -> None:
        """The first step is awaited."""
        self._since = time.perf_counter()
        self.watchdog.progress()

    def completed(self, steps: int) -> None:
        """Steps have come to their end; counts the time since the last ones did."""
        now = time.perf_counter()
        self.seconds += now - (now if self._since is None else self._since)
        self.steps += steps
        self._since = now
        self.watchdog.progress()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the clock and the watchdog for what is no training.

        Raises RuntimeError within itself, where the inner time would be left out twice.
        """
        if self._pausing:
            raise RuntimeError(
                "clock: got a pause within a pause; expected one at a time. Leave out the inner one"
            )
        begun = time.perf_counter()
        self._pausing = True
        try:
            with self.watchdog.paused():
                yield
        finally:
            self._pausing = False
            self.skip(time.perf_counter() - begun)

    def skip(self, seconds: float) -> None:
        """Does not count seconds that have passed since the last step's end."""
        if self._since is not None:
            self._since += seconds

    @property
    def seconds_per_step(self) -> float:
        """0 before the first step's end."""
        return self.seconds / self.steps if self.steps else 0.0
