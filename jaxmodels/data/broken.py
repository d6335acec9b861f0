"""Examples that cannot be loaded: what says so, and which errors do not mean the example."""

from __future__ import annotations

import re
import reprlib
from typing import Any, Literal

OnBroken = Literal["raise", "skip"]

# Of the program or the machine: raised also where broken examples are passed over.
NOT_THE_EXAMPLES = (ImportError, MemoryError, NameError, AttributeError, TypeError, NotImplementedError)


FEW = 4  # examples that say by their errors whether something other than themselves is wrong


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


class FirstExamples:
    """The examples that a pipeline reads first. Where none of a few can be loaded and all for one reason, that is no matter
    of single examples: passing over them would train on nothing, without a word."""

    def __init__(self, examples: int):
        self._few = min(FEW, examples)
        self._seen: dict[int, Broken] | None = {}  # None once that is known to be otherwise

    def note(self, whole: bool, errors: dict[int, Broken]) -> None:
        """Raises where all so far are broken for one reason. whole: whether another could be loaded."""
        if self._seen is None:
            return
        self._seen.update(errors)
        if whole or len({_reason(error.why) for error in self._seen.values()}) > 1:
            self._seen = None
        elif len(self._seen) >= self._few:
            first = next(iter(self._seen.values()))
            raise ValueError(
                f"got {len(self._seen)} examples, the first that were read, of which none could be loaded, all for the same "
                f'reason: {first.what}: {first.why}; expected that on_broken="skip" passes over a few of many. Look at the '
                "function that loads them, its options and the files"
            )


def _reason(why: str) -> str:
    """An error's words without names and numbers, which are each example's own."""
    return " ".join(re.sub(r"""'[^']*'|"[^"]*"|<[^>]*>|\S*[\d/]\S*""", "", why).split())


def shortly(item: Any) -> str:
    """An item as a message names it."""
    return _SHORT.repr(item)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
