"""A compiled program whose batches may change their shapes while it is in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class RecompilingProgram:
    """A compiled program that is compiled again where the batch's shapes or types change, and says how they
    did.

    compile(arguments, change) gives the program for these arguments; each is kept.
    """

    def __init__(self, executable: Any, inputs: Any, compile: Callable[[Any, str], Any]):
        self._compile, self._last = compile, _signature(inputs)
        self._executables = [(self._last, executable)]

    def texts(self) -> list[str]:
        """The program's text for each kind of arguments."""
        return [executable.as_text() for _, executable in self._executables]

    def __call__(self, state: Any, dataset: Any, inputs: Any) -> Any:
        """The program on these arguments; the state's buffers are given away."""
        signature = _signature(inputs)
        executable = next((known for of, known in self._executables if of == signature), None)
        if executable is None:

            def show(of, name):
                return f"{of[name][0]}{list(of[name][1])}" if name in of else "absent"

            changes = [
                f"{name} was {show(self._last, name)}, is {show(signature, name)}"
                for name in sorted({*self._last, *signature})
                if self._last.get(name) != signature.get(name)
            ]
            executable = self._compile((state, dataset, inputs), "; ".join(changes))
            self._executables.append((signature, executable))
        self._last = signature
        return executable(state, dataset, inputs)


def _signature(inputs: Any) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Type and shape of each array of a dispatch, without the axis of steps.

    Compared at every dispatch, so kept cheap.
    """
    if not isinstance(inputs, dict):
        return {"indices": (inputs.dtype, inputs.shape[1:])}
    return {f"batch[{name!r}]": (x.dtype, x.shape[1:]) for name, x in inputs.items()}
