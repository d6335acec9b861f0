"""Ctrl-C that arrives where Python cannot raise it, or where something turns it into another error.

A KeyboardInterrupt in a callback of the garbage collector (JAX has one, `_xla_gc_callback`), in a
`__del__` or in a callback of a weak reference is printed as "Exception ignored in …" and lost: the run
would go on to its end with status 0. In the import of a native module it becomes an ImportError without a
cause.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from typing import Any

AGAIN_AFTER = 0.05  # seconds, in which such a callback ends


_received = threading.Event()


def received() -> bool:
    """Whether a Ctrl-C has come since `watch` was called, whatever became of its KeyboardInterrupt."""
    return _received.is_set()


def watch() -> None:
    """From now on, a Ctrl-C is noted, and a KeyboardInterrupt that Python ignores is sent again, silently."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _note)
    usual = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            usual(unraisable)
            return
        timer = threading.Timer(AGAIN_AFTER, _interrupt)
        timer.daemon = True
        with contextlib.suppress(RuntimeError):  # Python is ending
            timer.start()

    sys.unraisablehook = hook


def _note(number: int, frame: Any) -> None:
    _received.set()
    signal.default_int_handler(number, frame)


def _interrupt() -> None:
    """A signal, unlike _thread.interrupt_main, also ends a wait of the main thread in the system."""
    identity = threading.main_thread().ident
    if identity is not None:
        signal.pthread_kill(identity, signal.SIGINT)
