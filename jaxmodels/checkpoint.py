"""Checkpoints: complete or invisible, checked when read, written in the background.

    checkpoints/N/state/         the arrays, by Orbax
    checkpoints/N/tree.json      their names, types and shapes: Orbax would cast to another type without a word
    checkpoints/N/note.json      what goes with them: metrics, sums of the running log interval
    checkpoints/N/manifest.json  size and sha256 of every file above

Every process writes its part of the arrays; all else is process 0's, and where that fails, the next wait raises in all. One
that cannot write its part raises PartLost and has to end: Orbax lets the others wait for it.

A checkpoint is built in a folder with another name and renamed when every byte, the manifest included, is on the disk. Orbax
notices no flipped bit, so a restore compares every file with the manifest; a damaged checkpoint is set aside and named.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels import processes

MANIFEST = "manifest.json"
ROOM = 256 << 10  # bytes beside the arrays


class Damaged(ValueError):
    """A checkpoint whose files are not what its manifest says."""


class PartLost(Exception):
    """One of several processes could not write its part of a checkpoint."""


class Checkpoints:
    """The checkpoints of one run's folder.

    keep: how many of the newest stay; the best (see save) stays as well. warn: gets one line when something was set aside.
    """

    def __init__(self, folder: Path, *, keep: int = 2, warn: Callable[[str], None] = print):
        self.folder = Path(folder)
        self.keep = max(1, keep)
        self.warn = warn
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
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdigit())

    def save(self, step: int, state: Any, note: dict[str, Any], *, best: bool = False) -> None:
        """Copies the state off the device and writes it in the background; waits for an earlier save first.

        best: this one is kept until a later one is the best.
        """
        import orbax.checkpoint as ocp

        self.wait()
        if self._writer is None:
            _silence_orbax()
            self._writer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        building, began = self.folder / f".saving-{step}", False
        try:
            processes.by_first(lambda: self._begin(building, state))
            began = True
            self._writer.save((building / "state").absolute(), args=ocp.args.StandardSave(_without_keys(state)))
        except Exception as error:
            if began and processes.count() > 1:
                raise self._part_lost(error) from error
            self._error = error
            shutil.rmtree(building, ignore_errors=True)
            self.wait()
        self._done = threading.Event()
        threading.Thread(target=self._finish, args=(step, building, note, best, self._done), name="checkpoint").start()

    def _begin(self, building: Path, state: Any) -> None:
        shutil.rmtree(building, ignore_errors=True)
        self._check_room(state)
        building.mkdir(parents=True)
        (building / "tree.json").write_text(json.dumps(_tree(state)))

    def _check_room(self, state: Any) -> None:
        """Raises OSError where the disk is too full; Orbax would notice too, but over a thousand lines of tracebacks."""
        place = next(p for p in (self.folder, *self.folder.parents) if p.exists())
        needed = sum(x.nbytes for x in jax.tree.leaves(_without_keys(state)))
        if shutil.disk_usage(place).free < needed + ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _finish(self, step: int, building: Path, note: dict[str, Any], best: bool, done: threading.Event) -> None:
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
            (building / MANIFEST).write_text(json.dumps(_digests(building)))
            for path in [*building.rglob("*"), building]:
                _sync(path)
            if best:  # first: a kill in between leaves a mark on what is saved again, not a best one without a mark
                mark = self.folder / ".best"
                mark.write_text(str(step))
                mark.replace(self.folder / "best")
            target = self.folder / str(step)
            shutil.rmtree(target, ignore_errors=True)  # only ever one that was found damaged or was forced over
            building.rename(target)
            _sync(self.folder)
            self._prune()
        except BaseException as error:  # reported by the next wait, in the run's own thread
            self._error = error
            if processes.first():
                shutil.rmtree(building, ignore_errors=True)
        finally:
            done.set()

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
            self._writer = None
            last = self.steps()
            raise OSError(
                f"a checkpoint could not be written to {self.folder}: {_reason(error)}. "
                + (f"The newest complete one is of step {last[-1]}." if last else "There is no complete one yet.")
                + " Make room there, or move the folder and name it with --folder."
            ) from error

    def _part_lost(self, error: Exception) -> PartLost:
        return PartLost(
            f"this process could not write its part of a checkpoint to {self.folder}: {_reason(error)}. All processes stop. "
            "Make room there, or move the folder and name it with --folder; then the same command goes on"
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
        """The step of the best checkpoint, where one was marked and is still there."""
        mark = self.folder / "best"
        text = mark.read_text().strip() if mark.is_file() else ""
        return int(text) if text.isdigit() and int(text) in self.steps() else None

    def _prune(self) -> None:
        spared = {*self.steps()[-self.keep :], self.best()}
        for step in self.steps():
            if step not in spared:
                gone = self.folder / f".saving-{step}"  # out of sight first: a kill in between leaves no half
                (self.folder / str(step)).rename(gone)
                shutil.rmtree(gone, ignore_errors=True)

    def note(self, step: int) -> dict[str, Any]:
        """What was saved beside the arrays."""
        return json.loads((self.folder / str(step) / "note.json").read_text())

    def restore(self, like: Any, step: int | None = None) -> tuple[int, Any, dict[str, Any]] | None:
        """(step, state, note) of the newest sound checkpoint, or of the one asked for; None where there is none.

        like: shapes, types and shardings of the state. Damaged checkpoints are renamed to damaged-N and the one before them
        used; where one was asked for by its step, or all are damaged, raises Damaged. Raises ValueError where the state is
        not like this.
        """
        n = processes.by_first(lambda: self._choose(step))
        if n is None:
            return None
        self._check(n, like)
        return n, _read(self.folder / str(n) / "state", like), self.note(n)

    def _choose(self, step: int | None) -> int | None:
        """The step that restore takes."""
        damage: dict[int, Damaged] = {}
        for n in self.steps()[::-1] if step is None else [step]:
            try:
                self.verify(n)
            except Damaged as error:
                if step is not None:
                    others = ", ".join(str(other) for other in self.steps() if other != step) or "none"
                    raise Damaged(f"{error}. Other checkpoints in {self.folder}: {others}; choose with --step") from error
                if (self.folder / str(n)).is_dir():  # else its run has removed it, while it was looked at from here
                    damage[n] = error
                continue
            for bad, damaged in damage.items():  # not before: with none left, the next start must not begin at 0
                aside = self._set_aside(bad)
                self.warn(f"{damaged}; {f'set aside as {aside}, ' if aside else ''}using that of step {n}")
            return n
        if damage:
            raise Damaged(
                f"no sound checkpoint is left in {self.folder}: {'; '.join(map(str, damage.values()))}. Copy one back from "
                "where it was intact, or start over with --fresh"
            )
        return None

    def _set_aside(self, step: int) -> str:
        """The damaged checkpoint's new name; "" where it could not be renamed."""
        aside = self.folder / f"damaged-{step}"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            (self.folder / str(step)).rename(aside)
        except OSError:
            return ""
        return aside.name

    def _check(self, step: int, like: Any) -> None:
        there, here = json.loads((self.folder / str(step) / "tree.json").read_text()), _tree(like)
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
        """Compares every file of a checkpoint with its manifest; raises Damaged with the first that differs."""
        path = self.folder / str(step)
        try:
            said = json.loads((path / MANIFEST).read_text())
            wanted = {name: (int(size), str(digest)) for name, (size, digest) in said.items()}
            if not wanted:
                raise ValueError("empty")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise Damaged(f"checkpoint {step}: its {MANIFEST} cannot be read ({_reason(error)})") from error
        found = {name: path / name for name in wanted}
        for name, (size, digest) in wanted.items():
            if not found[name].is_file():
                raise Damaged(f"checkpoint {step}: file {name} is missing")
            if found[name].stat().st_size != size:
                raise Damaged(
                    f"checkpoint {step}: file {name} has {found[name].stat().st_size} bytes, was written with {size}"
                )
            if _sha256(found[name]) != digest:
                raise Damaged(f"checkpoint {step}: the content of file {name} has changed since it was written")


def _read(path: Path, like: Any) -> Any:
    import orbax.checkpoint as ocp

    plain = _without_keys(like)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        got = reader.restore(path.absolute(), args=ocp.args.StandardRestore(plain))
    return jax.tree.map(lambda x, l: jax.random.wrap_key_data(x) if _is_key(l) else x, got, like)


def _tree(state: Any) -> dict[str, str]:
    """Type and shape of every array, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): f"{x.dtype}{list(x.shape)}" for path, x in leaves}


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _without_keys(tree: Any) -> Any:
    """Typed keys as their words; of an array or of its shape."""

    def plain(x):
        if not _is_key(x):
            return x
        if isinstance(x, jax.Array):
            return jax.random.key_data(x)
        words = jax.eval_shape(jax.random.key_data, x)
        return jax.ShapeDtypeStruct(words.shape, words.dtype, sharding=x.sharding)

    return jax.tree.map(plain, tree)


def _digests(folder: Path) -> dict[str, tuple[int, str]]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_size, _sha256(p)) for p in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _silence_orbax() -> None:
    """Its errors come up here and are said in one line; its own log repeats each a dozen times, with tracebacks."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_not_of_orbax)  # the same filter again is no second one


def _not_of_orbax(record: logging.LogRecord) -> bool:
    files, trace = [record.pathname], record.exc_info[2] if record.exc_info else None
    while trace is not None:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return not any("orbax" in file for file in files)


def _reason(error: BaseException) -> str:
    """The cause in a few words; a storage library's account of it runs over pages."""
    text = str(error)
    if re.search(r"No space left|RESOURCE_EXHAUSTED|ENOSPC|Disk quota|File too large", text):
        return "no space left on the device"
    return text.strip().splitlines()[0][:300] if text.strip() else type(error).__name__
