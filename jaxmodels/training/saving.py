"""A run's checkpoints, begun and waited for. One that fails is a warning while more are to come, and else an error."""

from __future__ import annotations

from typing import Any

from jaxmodels.console import Console
from jaxmodels.runs.folder import Folder


class Saver:
    """Begins a run's checkpoints and waits for them; without a folder it does neither."""

    def __init__(self, folder: Folder | None, console: Console):
        self._checkpoints = None if folder is None else folder.checkpoints
        self._console = console
        self.newest = -1  # the step that was saved or restored last

    def save(self, n: int, state: Any, note: dict[str, Any], *, best: bool, must: bool) -> None:
        """Begins the checkpoint of step n, if there is none. must: that it fails is an error, no warning."""
        if self._checkpoints is None or n == self.newest:
            return
        try:
            self._checkpoints.wait()
        except OSError as error:  # an earlier one
            self._console.warn(f"{error} Training goes on.")
        try:
            self._checkpoints.save(n, state, note, best=best)
            self.newest = n
        except OSError as error:
            if must:
                raise _not_saved(error) from error
            self._console.warn(f"{error} Training goes on.")

    def wait(self) -> None:
        """Returns when the last checkpoint is complete."""
        if self._checkpoints is not None:
            try:
                self._checkpoints.wait()
            except OSError as error:
                raise _not_saved(error) from error


def _not_saved(error: OSError) -> OSError:
    return OSError(f"{error} Then give the same command again, to go on from there.")
