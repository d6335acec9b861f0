"""Signals that end a run in good order: noted when they come, acted on between dispatches."""

from __future__ import annotations

import signal
import threading
from typing import Any

STOP_AT = -1  # stands for a signal where --stop-at ends the run


class Signals:
    """SIGTERM and Ctrl-C, noted while entered; a second one ends at once."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: Any) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def signal_name(number: int) -> str:
    """SIGTERM, SIGINT, or what stands for one."""
    return "--stop-at" if number == STOP_AT else signal.Signals(number).name
