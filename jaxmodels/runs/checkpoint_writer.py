"""Writes checkpoints in the background: built under another name, opened again as a reader would,
then renamed.

Every process writes its part of the arrays; all else is process 0's, and where that fails, the next wait
raises in all. A process that cannot write its part raises PartLost and has to end: Orbax lets the others
wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxmodels.launch.exit_statuses import FAILED
from jaxmodels.parallel import processes
from jaxmodels.runs import arrays, manifest
from jaxmodels.runs.files import read_json, sync
from jaxmodels.runs.manifest import LIMIT, CheckpointIdentity, digests_of

ROOM = 256 << 10  # bytes beside the arrays


class PartLost(Exception):
    """One of several processes could not write its part of a checkpoint."""

    exit_status = FAILED


class CheckpointWriter:
    """Writes checkpoints into one folder, one at a time.

    written: called when a checkpoint is complete. newest: gives the step of the newest complete one, for
    messages.
    """

    def __init__(self, folder: Path, *, written: Callable[[], None], newest: Callable[[], int | None]):
        self.folder, self._written, self._newest = folder, written, newest
        self._orbax: Any = None
        self._done: threading.Event | None = None  # of a save in the background
        self._error: BaseException | None = None

    def save(self, identity: CheckpointIdentity, state: Any, note: dict[str, Any]) -> None:
        """Copies the state off the device and writes it in the background, after an earlier save."""
        arrays.check_path(self.folder)
        self.wait()
        building, begun = self.folder / f".saving-{identity.step}", False
        done = threading.Event()
        thread = threading.Thread(
            target=self._finish, args=(building, note, identity, done), name="checkpoint"
        )
        try:
            if self._orbax is None:
                self._orbax = arrays.writer()
            processes.on_first_process(lambda: self._begin(building, state))
            begun = True
            arrays.begin(self._orbax, building / "state", state)
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads: then the run waits
                self._finish(building, note, identity, done)
        except Exception as error:
            if begun and processes.count() > 1:
                raise self._part_lost(error) from error
            self._error = error
            shutil.rmtree(building, ignore_errors=True)
            self.wait()
        self._done = done

    def _begin(self, building: Path, state: Any) -> None:
        shutil.rmtree(building, ignore_errors=True)
        self._check_room(state)
        building.mkdir(parents=True)
        (building / "tree.json").write_text(json.dumps(arrays.types_of(state)))

    def _check_room(self, state: Any) -> None:
        """Raises OSError where the disk is too full; Orbax would do so in a thousand lines of tracebacks."""
        existing = next(p for p in (self.folder, *self.folder.parents) if p.exists())
        needed = sum(x.nbytes for x in jax.tree.leaves(arrays.without_keys(state)))
        if shutil.disk_usage(existing).free < needed + ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _finish(
        self, building: Path, note: dict[str, Any], identity: CheckpointIdentity, done: threading.Event
    ) -> None:
        try:
            self._await_arrays()
            if not processes.first():
                return
            (building / "note.json").write_text(json.dumps(note))
            manifest.write_identity(building, identity)
            manifest.seal(building, digests_of(building))
            _open_again(building, identity)
            for path in [*building.rglob("*"), building]:
                sync(path)
            target = self.folder / str(identity.step)
            # There is one only where it was found damaged, or was forced over.
            shutil.rmtree(target, ignore_errors=True)
            building.rename(target)
            sync(self.folder)
            self._written()
        except BaseException as error:  # the next wait reports it, in the run's own thread
            self._error = error
            if processes.first():
                shutil.rmtree(building, ignore_errors=True)
        finally:
            done.set()

    def _await_arrays(self) -> None:
        try:
            self._orbax.wait_until_finished()
        except Exception as error:
            if processes.count() > 1:
                raise self._part_lost(error) from error
            raise

    def wait(self) -> None:
        """Returns when everything saved so far is on the disk.

        Raises OSError where that failed, in any process.
        """
        if self._done is not None:
            self._done.wait()  # unlike Thread.join, a signal can interrupt it, and it can be waited for again
            self._done = None
            if isinstance(self._error, PartLost):
                raise self._error
            self._error = processes.shared_failure(self._error)
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is None:
            return
        orbax, self._orbax = self._orbax, None
        with contextlib.suppress(
            Exception
        ):  # it has failed already; left open, it would print errors at the end
            if orbax is not None:
                orbax.close()
        newest, reason = self._newest(), arrays.reason(error)
        raise OSError(
            f"a checkpoint could not be written to {self.folder}: {reason}. "
            + (
                "There is no complete one yet."
                if newest is None
                else f"The newest complete one is of step {newest}."
            )
            + " Make room there, or move the folder and name it with --folder."
            + (
                ""
                if "space" in reason
                else " Or raise the limits of memory and threads (ulimit -v, ulimit -u)."
            )
        ) from error

    def _part_lost(self, error: Exception) -> PartLost:
        return PartLost(
            f"this process could not write its part of a checkpoint to {self.folder}: "
            f"{arrays.reason(error)}. All processes stop. Make room there, or move the folder and name it "
            "with --folder; then the same command goes on"
        )

    def close(self) -> None:
        """Waits for this process's writing, and ends Orbax's threads.

        Other processes may have failed, and not come here: nothing is exchanged.

        """
        try:
            if self._done is not None:
                self._done.wait()
                self._done = None
            self._raise()
        finally:
            if self._orbax is not None:
                self._orbax.close()
                self._orbax = None


def _open_again(building: Path, identity: CheckpointIdentity) -> None:
    """As a reader will; the digests were just made of what the disk gave."""
    manifest.verify(building, identity.step, run=identity.run, contents=False)
    tree = read_json(building / "tree.json", limit=LIMIT)
    if not arrays.can_be_opened(building / "state", tree):
        raise OSError(f"what was written to {building.name} cannot be opened again")
