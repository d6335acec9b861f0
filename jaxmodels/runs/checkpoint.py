"""Checkpoints: complete or invisible, checked when read, written in the background.

    checkpoints/N/state/         the arrays, by Orbax
    checkpoints/N/tree.json      their names, types and shapes: Orbax would silently cast to another type
    checkpoints/N/note.json      metrics, sums of the running log interval, and what decides later bits
    checkpoints/N/identity.json  whose it is: the run's id, the step, whether it was the best so far
    checkpoints/N/manifest.json  size and sha256 of every file above, and of no other

A checkpoint gets its name when every byte, the manifest included, is on the disk; see
checkpoint_writer.py. That it was the best so far is written in it, so no kill can part the two; the
newest one that says so is the best. Orbax notices no flipped bit, so a restore compares every file with
the manifest, and the step and the run with the folder's name and run; a damaged, renamed or foreign
checkpoint is set aside and named.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxmodels.parallel import processes
from jaxmodels.runs import arrays, lock, manifest
from jaxmodels.runs.checkpoint_writer import CheckpointWriter, PartLost
from jaxmodels.runs.files import read_json
from jaxmodels.runs.manifest import LIMIT, CheckpointIdentity, Damaged

ATTEMPTS = 1000  # to hold a checkpoint before its run removes it

__all__ = ["Checkpoints", "Damaged", "PartLost"]


class Checkpoints:
    """The checkpoints of one run's folder.

    keep: how many of the newest stay; the best (see save) stays as well, and what is being read. warn:
    gets one line when something was set aside. run: the run's id, which its checkpoints carry and must
    have; None saves none and takes any.
    """

    def __init__(
        self, folder: Path, *, keep: int = 2, warn: Callable[[str], None] = print, run: str | None = None
    ):
        self.folder = Path(folder)
        self.keep = max(1, keep)
        self.warn = warn
        self.run = run
        self._writer = CheckpointWriter(
            self.folder, written=self.prune, newest=lambda: max(self.steps(), default=None)
        )

    def clean(self) -> None:
        """Removes what a killed process left half written; only for the run that owns the folder."""
        for path in self.folder.glob(".saving-*"):
            shutil.rmtree(path, ignore_errors=True)

    def steps(self) -> list[int]:
        """Steps of the checkpoints, oldest first; they were complete when they got their names."""
        if not self.folder.is_dir():
            return []
        names = [entry.name for entry in self.folder.iterdir()]
        return sorted(int(name) for name in names if name.isdecimal() and name == str(int(name)))

    def best(self) -> int | None:
        """The step of the best checkpoint, where one was saved as such and is still there.

        One that does not say whether it is the best counts as such: it is not removed, and a reader hears
        that it is damaged.
        """
        for step in self.steps()[::-1]:
            try:
                if manifest.read_identity(self._path(step)).best:
                    return step
            except Damaged:
                if self._path(step).is_dir():  # else its run has removed it just now
                    return step
        return None

    def note(self, step: int) -> dict[str, Any]:
        """What was saved beside the arrays."""
        return read_json(self._path(step) / "note.json", limit=LIMIT)

    def verify(self, step: int) -> None:
        """Compares a checkpoint's files with its manifest, and its identity.

        Raises Damaged where they differ.
        """
        manifest.verify(self._path(step), step, run=self.run)

    def _path(self, step: int) -> Path:
        return self.folder / str(step)

    # Saving

    def save(self, step: int, state: Any, note: dict[str, Any], *, best: bool = False) -> None:
        """Copies the state off the device and writes it in the background; waits for an earlier save first.

        best: this one is kept until a later one is the best.
        """
        self._writer.save(CheckpointIdentity(self.run, step, best), state, note)

    def wait(self) -> None:
        """Returns when everything saved so far is on the disk.

        Raises OSError where that failed, in any process.
        """
        self._writer.wait()

    def close(self) -> None:
        """Waits for this process's writing, and ends its threads."""
        self._writer.close()

    def prune(self) -> None:
        """Removes all but the newest, the best and those being read; these go after a later save."""
        spared = {*self.steps()[-self.keep :], self.best()}
        for step in self.steps():
            hidden = self.folder / f".saving-{step}"  # out of sight first: a kill in between leaves no half
            if step not in spared and lock.rename_unheld(self._path(step), hidden):
                shutil.rmtree(hidden, ignore_errors=True)

    # Reading

    def restore(self, like: Any, step: int | None = None) -> tuple[int, Any, dict[str, Any]] | None:
        """(step, state, note) of the newest sound checkpoint, or of the given step; None where there is none.

        like: shapes, types and shardings of the state. Damaged checkpoints are renamed to damaged-N and
        the one before them used; where a step was given, or all are damaged, raises Damaged. Raises
        ValueError where the state is not like this.
        """
        chosen = processes.on_first_process(lambda: self._choose(step))
        if chosen is None:
            return None
        self._check_fits(chosen, arrays.types_of(like))
        return chosen, arrays.read(self._path(chosen) / "state", like), self.note(chosen)

    def read(
        self, like: Mapping[str, Any], step: int | None = None
    ) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
        """(step, parts, note) of some of the state's parts, by name, for readers while the run may go on.

        Without a step the best is read, else the newest. It is held, so that its run does not remove it
        meanwhile; one that was removed before is replaced by its successor. Nothing is renamed.
        """
        arrays.check_path(self.folder, writing=False)
        handle: int | None = None

        def hold() -> int | None:
            nonlocal handle
            held = self._hold(step)
            handle = None if held is None else held[1]
            return None if held is None else held[0]

        try:
            chosen = processes.on_first_process(hold)
            if chosen is None:
                return None
            self._check_fits(chosen, arrays.types_of(dict(like)), parts=like)
            parts = arrays.read_parts(self._path(chosen) / "state", like)
            note = self.note(chosen)
            processes.barrier("checkpoint read")
            return chosen, parts, note
        finally:
            if handle is not None:
                os.close(handle)

    def _hold(self, step: int | None) -> tuple[int, int] | None:
        """(step, handle that holds it) of what read reads."""
        for _ in range(ATTEMPTS):
            steps = self.steps()
            wanted = self.best() if step is None else step
            if not steps or (step is not None and step not in steps):
                break
            damage: dict[int, Damaged] = {}
            for candidate in steps[::-1] if wanted is None else [wanted]:
                handle = lock.hold(self._path(candidate))
                if handle is None:
                    break  # removed meanwhile: look again
                try:
                    self.verify(candidate)
                except Damaged as error:
                    os.close(handle)
                    if not self._path(candidate).is_dir():
                        break
                    if wanted is not None:
                        raise self._unusable(error, candidate) from error
                    damage[candidate] = error
                    continue
                for damaged in damage.values():
                    self.warn(f"{damaged}; using that of step {candidate}")
                return candidate, handle
            else:
                raise self._none_left(damage)
        if step is not None:
            raise ValueError(
                f"{self.folder} has no checkpoint of step {step}; it has {', '.join(map(str, self.steps()))}"
            )
        return None

    def _choose(self, step: int | None) -> int | None:
        """The step that restore restores."""
        damage: dict[int, Damaged] = {}
        for candidate in self.steps()[::-1] if step is None else [step]:
            try:
                self.verify(candidate)
            except Damaged as error:
                if step is not None:
                    raise self._unusable(error, step) from error
                if self._path(candidate).is_dir():  # else its run has removed it meanwhile
                    damage[candidate] = error
                continue
            # Set aside only now: where no sound one is left, the next start must not begin at 0.
            for bad, damaged in damage.items():
                aside = self._set_aside(bad)
                moved = f"set aside as {aside}, " if aside else ""
                self.warn(f"{damaged}; {moved}using that of step {candidate}")
            return candidate
        if damage:
            raise self._none_left(damage)
        return None

    def _unusable(self, error: Damaged, step: int) -> Damaged:
        others = ", ".join(str(other) for other in self.steps() if other != step) or "none"
        return Damaged(f"{error}. Other checkpoints in {self.folder}: {others}; choose with --step")

    def _none_left(self, damage: Mapping[int, Damaged]) -> Damaged:
        return Damaged(
            f"no sound checkpoint is left in {self.folder}: {'; '.join(map(str, damage.values()))}. Copy "
            "one back from where it was intact, or start over with --fresh"
        )

    def _set_aside(self, step: int) -> str:
        """The damaged checkpoint's new name; "" where it could not be renamed."""
        aside = self.folder / f"damaged-{step}"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            self._path(step).rename(aside)
        except OSError:
            return ""
        return aside.name

    def _check_fits(self, step: int, here: Mapping[str, str], parts: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError where names, types or shapes differ from those of a checkpoint, or of its
        named parts.
        """
        tree = read_json(self._path(step) / "tree.json", limit=LIMIT)
        there = {x: kind for x, kind in tree.items() if parts is None or x.partition("/")[0] in parts}
        changes = [
            f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
            for name in sorted({*there, *here})
            if there.get(name) != here.get(name)
        ]
        if changes:
            more = f"; and {len(changes) - 4} more" if len(changes) > 4 else ""
            raise ValueError(
                f"checkpoint {step} in {self.folder} does not fit the experiment: "
                f"{'; '.join(changes[:4])}{more}. Use the experiment's own folder, or start over with "
                "--fresh"
            )
