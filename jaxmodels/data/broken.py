"""Examples that cannot be loaded: their errors, and which errors are not the example's fault."""

from __future__ import annotations

import re
import reprlib
from typing import Any, Literal

OnBroken = Literal["raise", "skip"]

# Errors of the program or the machine: raised also where broken examples are skipped.
NOT_THE_EXAMPLES = (ImportError, MemoryError, NameError, AttributeError, TypeError, NotImplementedError)
FEW = 4  # examples whose errors show whether something other than the examples is wrong


class Broken(ValueError):
    """An example that cannot be loaded: which, and why."""

    def __init__(self, what: str, why: str):
        self.what, self.why = what, why
        super().__init__(
            f"{what} could not be loaded: {why}; expected an item that load and augment take. Repair it, "
            "leave it "
            'out of the source, or continue without such examples with on_broken="skip"'
        )


def broken(index: int, item: Any, error: Exception) -> ValueError:
    """The error to raise for an example: Broken, unless the program or the machine is at fault."""
    what = f"example {index} ({abbreviated(item)})"
    why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, NOT_THE_EXAMPLES) or (isinstance(error, OSError) and error.errno is not None):
        return ValueError(
            f"{what} could not be loaded: {why}; expected an item that load and augment take. Look at the "
            "file, the functions and the installed libraries"
        )
    return Broken(what, why)


class FirstExamples:
    """The examples that a pipeline reads first.

    Where none of a few can be loaded and all for one reason, the fault is not in single examples: skipping
    them would train on nothing, without a word.
    """

    def __init__(self, examples: int):
        self._few = min(FEW, examples)
        self._seen: dict[int, Broken] | None = {}  # None once one was loaded, or two had different errors

    def note(self, loaded: bool, errors: dict[int, Broken]) -> None:
        """Raises where all so far are broken for one reason. loaded: whether another could be loaded."""
        if self._seen is None:
            return
        self._seen.update(errors)
        if loaded or len({_reason(error.why) for error in self._seen.values()}) > 1:
            self._seen = None
        elif len(self._seen) >= self._few:
            first = next(iter(self._seen.values()))
            raise ValueError(
                f"the first examples: got {len(self._seen)} that could not be loaded, all for the same "
                f"reason: {first.what}: "
                f'{first.why}; expected a few broken ones among many with on_broken="skip". Look at the '
                "function that "
                "loads them, its options and the files"
            )


def _reason(why: str) -> str:
    """An error's words without names and numbers, which differ from example to example."""
    return " ".join(re.sub(r"""'[^']*'|"[^"]*"|<[^>]*>|\S*[\d/]\S*""", "", why).split())


def abbreviated(item: Any) -> str:
    """An item as text for a message."""
    return _SHORT.repr(item)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
