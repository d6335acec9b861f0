"""A run's checkpoints, restored, begun and waited for.

One that cannot be saved is a warning while more are to come, and else an error.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxmodels.console import Console
from jaxmodels.runs.folder import Folder
from jaxmodels.step import OnNan, State, skipped_spikes
from jaxmodels.training.progress import Progress


class Saver:
    """Restores a run's checkpoints, begins and waits for them; without a folder it does nothing."""

    def __init__(self, folder: Folder | None, console: Console):
        self._folder = folder
        self._checkpoints = None if folder is None else folder.checkpoints
        self._console = console
        self.newest = -1  # the step that was saved or restored last

    def restore(self, abstract: State, on_nan: OnNan) -> tuple[State, int, Progress] | None:
        """The newest sound checkpoint, its step and its progress; None where there is none.

        abstract: shapes of one.
        """
        if self._folder is None or self._checkpoints is None:
            return None
        restored = self._checkpoints.restore(abstract)
        self._folder.settle()
        if not restored:
            return None
        self.newest, state, note = restored
        if on_nan == "stop":  # batches that were skipped before do not stop it
            state = state._replace(faults=jnp.zeros_like(state.faults))
        progress = Progress.restored(note)
        progress.skipped = int(state.faults)
        progress.spikes = int(skipped_spikes(state.opt_state) or 0)
        self._console.say(f"going on from step {self.newest:,}", "bold")
        if warning := self._folder.go_on_longer(self.newest):
            self._console.warn(warning)
        return state, self.newest, progress

    def save(self, step: int, state: Any, note: dict[str, Any], *, best: bool, must: bool) -> None:
        """Begins the checkpoint of a step, if there is none. must: that it fails is an error, no warning."""
        if self._checkpoints is None or step == self.newest:
            return
        try:
            self._checkpoints.wait()
        except OSError as error:  # an earlier one
            self._console.warn(f"{error} Training goes on.")
        try:
            self._checkpoints.save(step, state, note, best=best)
            self.newest = step
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
