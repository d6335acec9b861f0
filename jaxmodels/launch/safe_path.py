"""Starting another Python that imports nothing from the working folder: an optax.py that lies there
is not run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "PYTHONSAFEPATH"  # the same for a Python that a library starts


def python(module: str) -> list[str]:
    """The beginning of a command that runs a module."""
    return [sys.executable, "-P", "-m", module]


@contextmanager
def starting() -> Iterator[None]:
    """Within, what a library starts has it in its environment."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
