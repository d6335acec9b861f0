"""Checkpoints: complete or invisible, checked when read, written in the background.

    checkpoints/N/state/         the arrays, by Orbax
    checkpoints/N/tree.json      their names, types and shapes: Orbax would cast to another type without a word
    checkpoints/N/note.json      what goes with them: metrics, sums of the running log interval, what decides later bits
    checkpoints/N/identity.json  whose it is: the run's id, the step, whether it was the best so far
    checkpoints/N/manifest.json  size and sha256 of every file above, and of none else

Every process writes its part of the arrays; all else is process 0's, and where that fails, the next wait
raises in all. One that cannot write its part raises PartLost and has to end: Orbax lets the others wait for
it.

A checkpoint is built in a folder with another name, opened again as a reader would, and renamed when every
byte, the manifest included, is on the disk. That it was the best so far is written in it, so no kill can part
the two; the newest one that says so is the best. Orbax notices no flipped bit, so a restore compares every
file with the manifest, and the step and the run with the folder's name and run; a damaged, renamed or foreign
checkpoint is set aside and named.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxmodels.launch.exit_statuses import FAILED
from jaxmodels.parallel import processes
from jaxmodels.runs import arrays, lock, manifest
from jaxmodels.runs.files import read_json
from jaxmodels.runs.files import sync as _sync
from jaxmodels.runs.manifest import CheckpointIdentity, Damaged
from jaxmodels.runs.manifest import digests_of as _digests

ROOM = 256 << 10  # bytes beside the arrays
LIMIT = 1 << 30  # bytes of a note or a list of arrays
ATTEMPTS = 1000  # to hold a checkpoint before its run removes it


__all__ = ["Checkpoints", "Damaged", "PartLost"]


class PartLost(Exception):
    """One of several processes could not write its part of a checkpoint."""

    exit_status = FAILED


class Checkpoints:
    """The checkpoints of one run's folder.

    keep: how many of the newest stay; the best (see save) stays as well, and what is being read. warn: gets
    one line when something was set aside. run: the run's id, which its checkpoints carry and must have; None
    saves none and takes any.
    """

    def __init__(
        self, folder: Path, *, keep: int = 2, warn: Callable[[str], None] = print, run: str | None = None
    ):
        self.folder = Path(folder)
        self.keep = max(1, keep)
        self.warn = warn
        self.run = run
        self._writer: Any = None
        self._done: threading.Event | None = None  # of a save in the background
        self._error: BaseException | None = None

    def clean(self) -> None:
        """Removes what a killed process left half written; only for the run that owns the folder."""
        for path in self.folder.glob(".saving-*"):
            shutil.rmtree(path, ignore_errors=True)

    def steps(self) -> list[int]:
        """Steps of the checkpoints, oldest first; they were complete when they got their names."""
        if not self.folder.is_dir():
            return []
        names = [p.name for p in self.folder.iterdir()]
        return sorted(int(name) for name in names if name.isdecimal() and name == str(int(name)))

    def save(self, step: int, state: Any, note: dict[str, Any], *, best: bool = False) -> None:
        """Copies the state off the device and writes it in the background; waits for an earlier save first.

        best: this one is kept until a later one is the best.
        """
        arrays.check_path(self.folder)
        self.wait()
        building, began = self.folder / f".saving-{step}", False
        identity = CheckpointIdentity(self.run, step, best)
        done = threading.Event()
        thread = threading.Thread(
            target=self._finish, args=(building, note, identity, done), name="checkpoint"
        )
        try:
            if self._writer is None:
                self._writer = arrays.writer()
            processes.on_first_process(lambda: self._begin(building, state))
            began = True
            arrays.begin(self._writer, building / "state", state)
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads: then the run waits
                self._finish(building, note, identity, done)
        except Exception as error:
            if began and processes.count() > 1:
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
        """Raises OSError where the disk is too full; Orbax would notice too, but over a thousand lines of tracebacks."""
        place = next(p for p in (self.folder, *self.folder.parents) if p.exists())
        needed = sum(x.nbytes for x in jax.tree.leaves(arrays.without_keys(state)))
        if shutil.disk_usage(place).free < needed + ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _finish(
        self, building: Path, note: dict[str, Any], identity: CheckpointIdentity, done: threading.Event
    ) -> None:
        try:
            try:
                self._writer.wait_until_finished()
            except Exception as error:
                if processes.count() > 1:
                    raise self._part_lost(error) from error
                raise
            if not processes.first():
                return
            (building / "note.json").write_text(json.dumps(note))
            manifest.write_identity(building, identity)
            manifest.seal(building, _digests(building))
            self._open_again(building, identity)
            for path in [*building.rglob("*"), building]:
                _sync(path)
            target = self.folder / str(identity.step)
            shutil.rmtree(
                target, ignore_errors=True
            )  # only ever one that was found damaged or was forced over
            building.rename(target)
            _sync(self.folder)
            self._prune()
        except BaseException as error:  # reported by the next wait, in the run's own thread
            self._error = error
            if processes.first():
                shutil.rmtree(building, ignore_errors=True)
        finally:
            done.set()

    def _open_again(self, building: Path, identity: CheckpointIdentity) -> None:
        """As a reader will; the digests were just made of what the disk gave."""
        manifest.verify(building, identity.step, run=self.run, contents=False)
        tree = read_json(building / "tree.json", limit=LIMIT)
        if not arrays.can_be_opened(building / "state", tree):
            raise OSError(f"what was written to {building.name} cannot be opened again")

    def wait(self) -> None:
        """Returns when everything saved so far is on the disk; raises OSError where that failed, in whatever process."""
        if self._done is not None:
            self._done.wait()  # unlike Thread.join, it can be interrupted by a signal and waited for again
            self._done = None
            if isinstance(self._error, PartLost):
                raise self._error
            self._error = processes.shared_failure(self._error)
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            writer, self._writer = self._writer, None
            with contextlib.suppress(
                Exception
            ):  # it has failed already; left open, it would speak up at the end
                if writer is not None:
                    writer.close()
            last = self.steps()
            reason = arrays.reason(error)
            raise OSError(
                f"a checkpoint could not be written to {self.folder}: {reason}. "
                + (
                    f"The newest complete one is of step {last[-1]}."
                    if last
                    else "There is no complete one yet."
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
            f"this process could not write its part of a checkpoint to {self.folder}: {arrays.reason(error)}. "
            "All processes stop. Make room there, or move the folder and name it with --folder; "
            "then the same command goes on"
        )

    def close(self) -> None:
        """Waits for this process's writing, and lets go of Orbax's threads; others may have failed, and not come here."""
        try:
            if self._done is not None:
                self._done.wait()
                self._done = None
            self._raise()
        finally:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def best(self) -> int | None:
        """The step of the best checkpoint, where one was saved as such and is still there.

        One that does not say whether it is counts as the best: it is not removed, and a reader is told that
        it is damaged.
        """
        for step in self.steps()[::-1]:
            try:
                if manifest.read_identity(self.folder / str(step)).best:
                    return step
            except Damaged:
                if (self.folder / str(step)).is_dir():  # else its run has removed it just now
                    return step
        return None

    def _prune(self) -> None:
        spared = {*self.steps()[-self.keep :], self.best()}
        for step in self.steps():
            gone = self.folder / f".saving-{step}"  # out of sight first: a kill in between leaves no half
            if step not in spared and lock.rename_unheld(
                self.folder / str(step), gone
            ):  # else after a later save
                shutil.rmtree(gone, ignore_errors=True)

    def note(self, step: int) -> dict[str, Any]:
        """What was saved beside the arrays."""
        return read_json(self.folder / str(step) / "note.json", limit=LIMIT)

    def restore(self, like: Any, step: int | None = None) -> tuple[int, Any, dict[str, Any]] | None:
        """(step, state, note) of the newest sound checkpoint, or of the one asked for; None where there is none.

        like: shapes, types and shardings of the state. Damaged checkpoints are renamed to damaged-N and the
        one before them used; where one was asked for by its step, or all are damaged, raises Damaged. Raises
        ValueError where the state is not like this.
        """
        n = processes.on_first_process(lambda: self._choose(step))
        if n is None:
            return None
        self._check(n, arrays.types_of(like))
        return n, arrays.read(self.folder / str(n) / "state", like), self.note(n)

    def read(
        self, like: Mapping[str, Any], step: int | None = None
    ) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
        """The same of some of the state's parts, by name, for those whom the run does not belong to, while it may go on.

        Without a step the best is taken, else the newest. It is held, so that its run does not remove it
        meanwhile; one that was removed before is replaced by its successor. Nothing is renamed.
        """
        arrays.check_path(self.folder, writing=False)
        handle: int | None = None

        def take() -> int | None:
            nonlocal handle
            taken = self._take(step)
            handle = None if taken is None else taken[1]
            return None if taken is None else taken[0]

        try:
            n = processes.on_first_process(take)
            if n is None:
                return None
            self._check(n, arrays.types_of(dict(like)), parts=like)
            got = n, arrays.read_parts(self.folder / str(n) / "state", like), self.note(n)
            processes.barrier("checkpoint read")
            return got
        finally:
            if handle is not None:
                os.close(handle)

    def _take(self, step: int | None) -> tuple[int, int] | None:
        """(step, handle that holds it) of what read takes."""
        for _ in range(ATTEMPTS):
            steps, best = self.steps(), self.best()
            one = best if step is None else step
            if not steps or (step is not None and step not in steps):
                break
            damage: dict[int, Damaged] = {}
            for n in steps[::-1] if one is None else [one]:
                handle = lock.hold(self.folder / str(n))
                if handle is None:
                    break  # removed meanwhile: look again
                try:
                    self.verify(n)
                except Damaged as error:
                    os.close(handle)
                    if not (self.folder / str(n)).is_dir():
                        break
                    if one is not None:
                        raise self._of_no_use(error, n) from error
                    damage[n] = error
                    continue
                for damaged in damage.values():
                    self.warn(f"{damaged}; using that of step {n}")
                return n, handle
            else:
                raise self._none_left(damage)
        if step is not None:
            raise ValueError(
                f"{self.folder} has no checkpoint of step {step}; it has {', '.join(map(str, self.steps()))}"
            )
        return None

    def _choose(self, step: int | None) -> int | None:
        """The step that restore takes."""
        damage: dict[int, Damaged] = {}
        for n in self.steps()[::-1] if step is None else [step]:
            try:
                self.verify(n)
            except Damaged as error:
                if step is not None:
                    raise self._of_no_use(error, step) from error
                if (
                    self.folder / str(n)
                ).is_dir():  # else its run has removed it, while it was looked at from here
                    damage[n] = error
                continue
            for (
                bad,
                damaged,
            ) in damage.items():  # not before: with none left, the next start must not begin at 0
                aside = self._set_aside(bad)
                self.warn(f"{damaged}; {f'set aside as {aside}, ' if aside else ''}using that of step {n}")
            return n
        if damage:
            raise self._none_left(damage)
        return None

    def _of_no_use(self, error: Damaged, step: int) -> Damaged:
        others = ", ".join(str(other) for other in self.steps() if other != step) or "none"
        return Damaged(f"{error}. Other checkpoints in {self.folder}: {others}; choose with --step")

    def _none_left(self, damage: Mapping[int, Damaged]) -> Damaged:
        return Damaged(
            f"no sound checkpoint is left in {self.folder}: {'; '.join(map(str, damage.values()))}. Copy one back from "
            "where it was intact, or start over with --fresh"
        )

    def _set_aside(self, step: int) -> str:
        """The damaged checkpoint's new name; "" where it could not be renamed."""
        aside = self.folder / f"damaged-{step}"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            (self.folder / str(step)).rename(aside)
        except OSError:
            return ""
        return aside.name

    def _check(self, step: int, here: Mapping[str, str], parts: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError where these names, types and shapes are not those of a checkpoint, or of its parts alone."""
        there = read_json(self.folder / str(step) / "tree.json", limit=LIMIT)
        there = {
            name: kind for name, kind in there.items() if parts is None or name.partition("/")[0] in parts
        }
        changes = [
            f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
            for name in sorted({*there, *here})
            if there.get(name) != here.get(name)
        ]
        if changes:
            raise ValueError(
                f"checkpoint {step} in {self.folder} does not fit the experiment: {'; '.join(changes[:4])}"
                f"{f'; and {len(changes) - 4} more' if len(changes) > 4 else ''}. Use the experiment's own folder, or start "
                "over with --fresh"
            )

    def verify(self, step: int) -> None:
        """Compares every file of a checkpoint with its manifest, and whose it is; raises Damaged where they differ."""
        manifest.verify(self.folder / str(step), step, run=self.run)
