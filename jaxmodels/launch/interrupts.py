"""Ctrl-C that arrives where Python cannot raise it.

A KeyboardInterrupt in a callback of the garbage collector (JAX has one, `_xla_gc_callback`), in a
`__del__` or in a callback of a weak reference is printed as "Exception ignored in …" and lost: the run
would go on to its end with status 0.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from typing import Any

AGAIN_AFTER = 0.05  # seconds, in which such a callback ends


def send_ignored_again() -> None:
    """From now on, a KeyboardInterrupt that Python ignores is sent to the main thread again, silently."""
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


def _interrupt() -> None:
    """A signal, unlike _thread.interrupt_main, also ends a wait of the main thread in the system."""
    identity = threading.main_thread().ident
    if identity is not None:
        signal.pthread_kill(identity, signal.SIGINT)
