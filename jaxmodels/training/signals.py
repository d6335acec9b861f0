"""Signals that end a run in good order: noted when they come, acted on between dispatches.

With several processes SIGTERM is JAX's: it tells all of them, and names a dispatch that none has reached yet,
at which they stop together.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from typing import Any

from jax.experimental import multihost_utils

from jaxmodels.parallel import processes

STOP_AT = -1  # stands for a signal where --stop-at ends the run
_DISPATCHES = itertools.count(1)  # of this process, the same in all


class Signals:
    """SIGTERM and Ctrl-C, noted while entered; a second one ends at once. stop_at: a step, before the last
    of `steps`, that counts as one."""

    def __init__(self, stop_at: int = 0, steps: int = 0) -> None:
        self.received = 0
        self._stop_at, self._steps = stop_at, steps
        self._many = processes.count() > 1
        self._before: dict[int, Any] = {}

    def reached(self, step: int) -> bool:
        """Whether a run that has come to this step is to stop here; noted as a signal."""
        if 0 < self._stop_at <= step < self._steps:
            self.received = self.received or STOP_AT
        return self.received == STOP_AT

    def poll(self, step: int) -> None:
        """Asks, after each dispatch, whether all processes are to stop here."""
        self.reached(step)
        if self._many and multihost_utils.reached_preemption_sync_point(next(_DISPATCHES)):
            self.received = self.received or signal.SIGTERM

    def _note(self, number: int, frame: Any) -> None:
        if self._many:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if self.received:
            raise KeyboardInterrupt
        self.received = number

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            noted = (signal.SIGINT,) if self._many else (signal.SIGTERM, signal.SIGINT)
            self._before = {s: signal.signal(s, self._note) for s in noted}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def signal_name(number: int) -> str:
    """SIGTERM, SIGINT, or what stands for one."""
    return "--stop-at" if number == STOP_AT else signal.Signals(number).name
