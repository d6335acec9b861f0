"""A run's folder: what was run, what came out, and who may write to it.

    experiment.py  knobs.json  run.json   environment.json   metrics.jsonl   checkpoints/N/   result.json

A folder belongs to one experiment, and one run at a time trains in it. Of several processes, the first
one writes. The first three files define the run, and are compared with their digests; what decides bits
after a resume is in the checkpoints. The others are information: a run comes to the same parameters
without them.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from jaxmodels.parallel import processes
from jaxmodels.runs import arrays, definition, files, identity, lock, metrics_file, names
from jaxmodels.runs.checkpoint import Checkpoints
from jaxmodels.runs.definition import LENGTHS, RunDefinition
from jaxmodels.runs.environment import describe_environment
from jaxmodels.runs.files import read_json
from jaxmodels.runs.learned import NAME as LEARNED
from jaxmodels.runs.learned import write_learned
from jaxmodels.runs.png import write_png

OF_A_RUN = (
    "experiment.py",
    "knobs.json",
    identity.RUN,
    LEARNED,
    "checkpoints",
    "metrics.jsonl",
    "result.json",
)


class Folder:
    """One run's folder, held by this process until it is closed.

    longer: each time that the complete run was made longer, at which step and by which knob.
    """

    def __init__(self, path: Path, *, keep: int, warn: Any = print):
        self.path = Path(path)
        self.checkpoints = Checkpoints(self.path / "checkpoints", keep=keep, warn=warn)
        self.longer: list[dict[str, Any]] = []
        self._lock: TextIO | None = None
        self._lengthened: tuple[str, RunDefinition, RunDefinition] | None = None  # knob, saved, wanted
        self._forced: RunDefinition | None = None

    def open(self, wanted: RunDefinition, *, fresh: bool = False, force: bool = False) -> bool:
        """Takes the folder; True where it holds a run of this experiment to go on with.

        fresh: an old run is moved aside, to NAME.1 and so on. force: go on with the old run though it is
        another experiment's; `settle` writes the new one down when the old run's checkpoint is known to
        fit. A complete run whose experiment differs only by more steps goes on; see go_on_longer.
        """
        going_on, self.checkpoints.run = processes.on_first_process(lambda: self._open(wanted, fresh, force))
        return going_on

    def _open(self, wanted: RunDefinition, fresh: bool, force: bool) -> tuple[bool, str]:
        arrays.check_path(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._take()
        except OSError as error:
            raise ValueError(
                f"the run's folder {self.path}: got {error.strerror or error}; expected a folder that can "
                "be written. Choose another one with --folder, or change its permissions"
            ) from error
        if fresh and any((self.path / name).exists() for name in OF_A_RUN):
            self._set_aside()
        steps = self.checkpoints.steps()
        if has_begun(self.path):
            run = identity.read(self.path) if force else identity.verify(self.path)
            with contextlib.suppress(ValueError, OSError):
                self.longer = read_json(self.path / "knobs.json").get("longer", [])
            if force:
                self._forced = wanted
            else:
                self._compare(wanted, run)
        else:  # nothing yet, or what a start left that was refused or killed
            (self.path / LEARNED).unlink(missing_ok=True)
            run = identity.new_id()
            self._write(wanted, run)
        self.checkpoints.clean()
        return bool(steps), run

    def _compare(self, wanted: RunDefinition, run: str) -> None:
        """Raises ValueError where the folder holds another experiment; notes a longer run, and new facts."""
        saved = definition.read(self.path)
        knob = definition.lengthened_knob(saved, wanted)
        if knob is not None and self.result().get("exit") == "complete" and self.checkpoints.steps():
            self._lengthened = knob, saved, wanted
            return
        self._refuse(definition.differences(saved, wanted))
        if wanted.data.keys() - saved.data.keys() or wanted.traced.keys() - saved.traced.keys():
            # Of data that has become known since the run began, and of a step as another JAX traces it.
            self._write(wanted._replace(traced={**saved.traced, **wanted.traced}), run)

    def _refuse(self, differences: list[str]) -> None:
        if not differences:
            return
        first = differences[0].split(":")[0]
        longer = f"\n(A complete run goes on with more {first}; none does with fewer, or before its end.)"
        listed = "\n  ".join(differences)
        raise ValueError(
            f"{self.path} holds another experiment:\n  {listed}"
            + (longer if len(differences) == 1 and first in LENGTHS else "")
            + "\nChoose another --folder, start over in this one with --fresh (the old run is kept, "
            "renamed), or go on with the old run's parameters under the new experiment with --force"
        )

    def settle(self) -> None:
        """Writes down the experiment that was forced upon an old run."""
        if self._forced is not None and processes.first():
            assert self.checkpoints.run is not None
            self._write(self._forced, self.checkpoints.run)
        self._forced = None

    def _write(self, definition: RunDefinition, run: str) -> None:
        identity.write(self.path, run, definition.files(self.longer))

    def go_on_longer(self, step: int) -> str:
        """Writes down that the complete run goes on from this step with more steps.

        Gives what to tell, or "".

        Called when the state has been restored, so that nothing changes where it cannot be.
        """
        if self._lengthened is None:
            return ""
        (knob, saved, wanted), self._lengthened = self._lengthened, None
        old, new = saved.knobs[knob], wanted.knobs[knob]
        self.longer = [*self.longer, {"step": step, "knob": knob, "from": old, "to": new}]
        assert self.checkpoints.run is not None
        self._write(wanted, self.checkpoints.run)
        # The shorter run's result: a reader would take this one for complete.
        (self.path / "result.json").unlink(missing_ok=True)
        return (
            f"the complete run of {old:,} {knob} goes on to {new:,}: from step {step:,} on its schedules "
            f"are those of the longer run. The result is not that of one run of {new:,} {knob}, unless no "
            "schedule depends on their number"
        )

    def _take(self) -> None:
        try:
            self._lock = lock.take(self.path / ".lock", f"process {os.getpid()} on {platform.node()}")
        except lock.Taken as taken:
            owner = str(taken)
            raise ValueError(
                f"{self.path} is in use{': ' + owner if owner else ''} is training in it. Wait for it, stop "
                "it, or choose another --folder"
            ) from None

    def close(self) -> None:
        """Releases the folder, after everything is on the disk."""
        try:
            self.checkpoints.close()
        finally:
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _set_aside(self) -> None:
        n = 1
        while (aside := self.path.with_name(f"{self.path.name}.{n}")).exists():
            n += 1
        self._release()
        self.path.rename(aside)
        self.path.mkdir()
        self._take()

    def write_environment(self, **more: Any) -> None:
        """Versions, devices, command and commit of this start."""
        if processes.first():
            files.write_json(self.path / "environment.json", {**describe_environment(), **more})

    def resume_metrics(self, step: int) -> None:
        """Drops what the log says of steps after the restored one."""
        if processes.first():
            metrics_file.truncate(self.path / "metrics.jsonl", step)

    def logged(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, in every process; to be called after resume_metrics."""
        return processes.on_first_process(lambda: metrics_file.read(self.path / "metrics.jsonl"))

    def result(self) -> dict[str, Any]:
        """What result.json says; {} before the first end, or where it cannot be read."""
        with contextlib.suppress(ValueError, OSError):
            return read_json(self.path / "result.json")
        return {}

    def write_result(self, result: Mapping[str, Any]) -> None:
        """The final metrics and how the run ended."""
        if processes.first():
            files.write_json(self.path / "result.json", metrics_file.finite(result))

    def write_learned(self, values: Mapping[str, Any]) -> None:
        """What the run has learned from its data."""
        if processes.first():
            write_learned(self.path, values)

    def write_picture(self, name: str, pixels: Any) -> Path:
        """Writes pictures/<name>.png, whatever the name, made safe: uint8, height x width x 1 or 3.

        Bytes are those of a WAV file, for sounds/<name>.wav.
        """
        if isinstance(pixels, bytes):
            sound = files.inside(self.path, f"sounds/{names.safe_name(name)}.wav")
            sound.parent.mkdir(exist_ok=True)
            sound.write_bytes(pixels)
            return sound
        file = files.inside(self.path, f"pictures/{names.safe_name(name)}.png")
        file.parent.mkdir(exist_ok=True)
        return write_png(file, pixels)


def has_begun(path: Path) -> bool:
    """Whether there is something to go on with, or to lose: a checkpoint, a logged line, a result, members.

    A start that was refused, or killed before any of these, leaves none, and the next one may be of
    another experiment.
    """
    checkpoints = path / "checkpoints"
    if (path / "members").exists():
        return True
    if checkpoints.is_dir() and any(not entry.name.startswith(".") for entry in checkpoints.iterdir()):
        return True
    log, result = path / "metrics.jsonl", path / "result.json"
    if log.is_file() and log.stat().st_size:
        return True
    try:
        return read_json(result).get("exit") == "complete"
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
