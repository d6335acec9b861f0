"""Examples that cannot be loaded: what says so, and which errors do not mean the example."""

from __future__ import annotations

import reprlib
from typing import Any, Literal

OnBroken = Literal["raise", "skip"]

# Of the program or the machine: raised also where broken examples are passed over.
NOT_THE_EXAMPLES = (ImportError, MemoryError, NameError, AttributeError, TypeError, NotImplementedError)


class Broken(ValueError):
    """An example that cannot be loaded: which, and why."""

    def __init__(self, what: str, why: str):
        self.what, self.why = what, why
        super().__init__(
            f"{what} could not be loaded: {why}; expected what load and augment take. Mend it, leave it out of the source, "
            'or go on without such examples with on_broken="skip"'
        )


def broken(index: int, item: Any, error: Exception) -> ValueError:
    """What to raise for an example's error: Broken, unless it says nothing about the example."""
    what = f"example {index} ({shortly(item)})"
    why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, NOT_THE_EXAMPLES) or (isinstance(error, OSError) and error.errno is not None):
        return ValueError(
            f"{what} could not be loaded: {why}; expected what load and augment take. Look at the file, the functions and "
            "what is installed"
        )
    return Broken(what, why)


def shortly(item: Any) -> str:
    """An item as a message names it."""
    return _SHORT.repr(item)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
