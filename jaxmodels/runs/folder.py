"""A run's folder: what was run, what came out, and who may write to it.

    experiment.py  knobs.json  run.json   environment.json   metrics.jsonl   checkpoints/N/   result.json

A folder belongs to one experiment, and one run at a time trains in it. Of several processes, the first one
writes. The first three say what was run, and are compared with their digests; what decides bits after a
resume is in the checkpoints. The others are information: a run comes to the same parameters without them.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxmodels.parallel import processes
from jaxmodels.runs import arrays, code, files, fingerprints, identity, metrics_file, names, step_digest
from jaxmodels.runs.checkpoint import Checkpoints
from jaxmodels.runs.files import read_json
from jaxmodels.runs.learned import NAME as LEARNED
from jaxmodels.runs.learned import write_learned
from jaxmodels.runs.png import write_png

LENGTHS = ("steps", "epochs")  # knobs that say how long a run is: a complete run may be made longer
OF_A_RUN = (
    "experiment.py",
    "knobs.json",
    identity.RUN,
    LEARNED,
    "checkpoints",
    "metrics.jsonl",
    "result.json",
)


class Identity(NamedTuple):
    """What makes two runs the same: the experiment's code, its knobs, the options that change the result, and the data.

    beside: the modules beside the experiment's file, see jaxmodels.runs.code. data: see
    jaxmodels.runs.fingerprints; data whose fingerprint is not known differs from none. traced: of an
    Experiment without a file, see jaxmodels.runs.step_digest.
    """

    source: str
    knobs: Mapping[str, Any]
    options: Mapping[str, Any]
    beside: Mapping[str, str] = MappingProxyType({})
    data: Mapping[str, Any] = MappingProxyType({})
    traced: Mapping[str, str] = MappingProxyType({})

    @property
    def code(self) -> dict[str, str]:
        """The texts of all files that are code, by path in a run's folder."""
        return {
            "experiment.py": self.source,
            **{f"{code.FOLDER}/{name}": text for name, text in self.beside.items()},
        }


class Folder:
    """One run's folder, held by this process until it is closed."""

    def __init__(self, path: Path, *, keep: int, warn: Any = print):
        self.path = Path(path)
        self.checkpoints = Checkpoints(self.path / "checkpoints", keep=keep, warn=warn)
        self._lock: Any = None
        self.longer: list[
            dict[str, Any]
        ] = []  # each time that the complete run was made longer: at which step, which knob
        self._lengthen: Identity | None = None
        self._forced: Identity | None = None

    def open(self, wanted: Identity, *, fresh: bool = False, force: bool = False) -> bool:
        """Takes the folder; True where it holds a run of this experiment to go on with.

        fresh: an old run is moved aside, to NAME.1 and so on. force: go on with it though it is another
        experiment's, which is written down by `settle`, when the old run's checkpoint is known to fit. A
        complete run whose experiment differs by more steps alone is gone on with; see go_on_longer.
        """
        going_on, self.checkpoints.run = processes.on_first_process(lambda: self._open(wanted, fresh, force))
        return going_on

    def _open(self, wanted: Identity, fresh: bool, force: bool) -> tuple[bool, str]:
        arrays.check_path(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._take()
        except OSError as error:
            raise ValueError(
                f"the run's folder {self.path} cannot be written: {error.strerror or error}. Choose another one with "
                "--folder, or change its permissions"
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
            elif not self._is_longer(wanted):
                self._check(wanted)
                known = self._traced()
                if wanted.data.keys() - self._data().keys() or wanted.traced.keys() - known.keys():
                    # Of data that has become known since the run began, and of a step as another JAX traces
                    # it.
                    self._write_identity(wanted._replace(traced={**known, **wanted.traced}), run)
        else:  # nothing yet, or what a start left that was refused or killed
            (self.path / LEARNED).unlink(missing_ok=True)
            run = identity.new_id()
            self._write_identity(wanted, run)
        self.checkpoints.clean()
        return bool(steps), run

    def settle(self) -> None:
        """Writes down the experiment that was forced upon an old run."""
        if self._forced is not None and processes.first():
            assert self.checkpoints.run is not None
            self._write_identity(self._forced, self.checkpoints.run)
        self._forced = None

    def _write_identity(self, what: Identity, run: str) -> None:
        knobs = {**_as_json(what), **({"longer": self.longer} if self.longer else {})}
        knobs |= {"data": dict(what.data)} if what.data else {}
        knobs |= {"traced": dict(what.traced)} if what.traced else {}
        contents = {**what.code, "knobs.json": json.dumps(knobs, indent=1)}
        identity.write(self.path, run, {name: text.encode() for name, text in contents.items()})

    def _texts(self) -> dict[str, str]:
        """The texts of all files here that are code."""
        source = files.read_text(self.path / "experiment.py")
        return Identity(source, {}, {}, beside=code.read_beside(self.path)).code

    def _data(self) -> dict[str, dict[str, Any]]:
        """The fingerprints of the data that the run was trained on."""
        return fingerprints.stored(read_json(self.path / "knobs.json").get("data"))

    def _traced(self) -> dict[str, str]:
        """What is known of the run's Experiment that came without a file."""
        return step_digest.stored(read_json(self.path / "knobs.json").get("traced"))

    def _is_longer(self, wanted: Identity) -> bool:
        """Whether this is the folder's complete run with more steps, and nothing else changed."""
        old, new = read_json(self.path / "knobs.json"), _as_json(wanted)
        changed = [k for k in {*old["knobs"], *new["knobs"]} if old["knobs"].get(k) != new["knobs"].get(k)]
        if len(changed) != 1 or changed[0] not in LENGTHS or old["options"] != new["options"]:
            return False
        before, after = old["knobs"].get(changed[0]), new["knobs"].get(changed[0])
        same_code = {k: _code(x) for k, x in self._texts().items()} == {
            k: _code(x) for k, x in wanted.code.items()
        }
        more = type(before) is type(after) is int and after > before
        same_data = not fingerprints.changed(self._data(), wanted.data)
        same_code = same_code and step_digest.is_longer(self._traced(), wanted.traced)
        if not (
            same_code
            and same_data
            and more
            and self.result().get("exit") == "complete"
            and self.checkpoints.steps()
        ):
            return False
        self._lengthen = wanted
        return True

    def go_on_longer(self, step: int) -> str:
        """Writes down that the complete run goes on from this step with more steps, and gives what is to be said of it; ""
        where it does not. Called when the state has been restored, so that nothing changes where it cannot be."""
        wanted, self._lengthen = self._lengthen, None
        if wanted is None:
            return ""
        before, after = read_json(self.path / "knobs.json")["knobs"], wanted.knobs
        [name] = [k for k in LENGTHS if before.get(k) != after.get(k)]
        self.longer = [*self.longer, {"step": step, "knob": name, "from": before[name], "to": after[name]}]
        assert self.checkpoints.run is not None
        self._write_identity(wanted, self.checkpoints.run)
        (self.path / "result.json").unlink(
            missing_ok=True
        )  # of the shorter run: a reader would take this one for complete
        return (
            f"the complete run of {before[name]:,} {name} goes on to {after[name]:,}: from step {step:,} on its schedules "
            f"are those of the longer run. The result is not that of one run of {after[name]:,} {name}, unless no schedule "
            "depends on their number"
        )

    def _take(self) -> None:
        import fcntl

        self._lock = os.fdopen(files.open_appending(self.path / ".lock"), "a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read().strip()
            self._lock.close()
            self._lock = None
            raise ValueError(
                f"{self.path} is in use{': ' + owner if owner else ''} is training in it. Wait for it, stop it, or "
                "choose another --folder"
            ) from None
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {platform.node()}")
        self._lock.flush()

    def close(self) -> None:
        """Lets go of the folder, after everything is on the disk."""
        try:
            self.checkpoints.close()
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def _set_aside(self) -> None:
        n = 1
        while (aside := self.path.with_name(f"{self.path.name}.{n}")).exists():
            n += 1
        self._lock.close()
        self.path.rename(aside)
        self.path.mkdir()
        self._take()

    def _check(self, wanted: Identity) -> None:
        """Raises where the folder holds another experiment, with what differs."""
        old, new = read_json(self.path / "knobs.json"), _as_json(wanted)
        changes = [
            f"{name}: {before.get(name, '(absent)')} there, {after.get(name, '(absent)')} here"
            for before, after in ((old["knobs"], new["knobs"]), (old["options"], new["options"]))
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
        changes += fingerprints.differences(self._data(), wanted.data)
        changes += step_digest.differences(self._traced(), wanted.traced)
        here = self._texts()
        for name in dict.fromkeys([*here, *wanted.code]):
            if (name in here) == (name in wanted.code) and _code(here[name]) == _code(wanted.code[name]):
                continue
            before, after = (of.get(name, "").splitlines() for of in (here, wanted.code))
            lines = difflib.unified_diff(before, after, lineterm="", n=0)
            changed = [
                line
                for line in lines
                if line[:1] in "+-" and line[:3] not in ("+++", "---") and line[1:].strip()
            ]
            changes += [
                "the experiment's file:"
                if name == "experiment.py"
                else f"{Path(name).relative_to(code.FOLDER)}, beside it:",
                *(f"  {line}" for line in changed[:8]),
                *(["  …"] if len(changed) > 8 else []),
            ]
        if changes:
            first = changes[0].split(":")[0]
            longer = f"\n(A complete run goes on with more {first}; none does with fewer, or before its end.)"
            raise ValueError(
                f"{self.path} holds another experiment:\n  "
                + "\n  ".join(changes)
                + (longer if len(changes) == 1 and first in LENGTHS else "")
                + "\nChoose another --folder, start over "
                "in this one with --fresh (the old run is kept, renamed), or go on with the old run's parameters under the "
                "new experiment with --force"
            )

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
        """Writes pictures/<name>.png, whatever the name, made safe: uint8, height x width x 1 or 3."""
        file = files.inside(self.path, f"pictures/{names.safe_name(name)}.png")
        file.parent.mkdir(exist_ok=True)
        return write_png(file, pixels)


def has_begun(path: Path) -> bool:
    """Whether there is something to go on with, or to lose: a checkpoint, a line of a log, a result, a sweep's members.

    A start that was refused, or killed before it came to any of these, leaves none, and the next one need not
    be its like.
    """
    kept = path / "checkpoints"
    if (path / "members").exists() or (
        kept.is_dir() and any(not p.name.startswith(".") for p in kept.iterdir())
    ):
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


def _as_json(identity: Identity) -> dict[str, Any]:
    return json.loads(json.dumps({"knobs": identity.knobs, "options": identity.options}, default=str))


def describe_environment() -> dict[str, Any]:
    """Everything outside the experiment that a number may depend on."""
    import jax

    packages = ("jaxmodels", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    versions = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    devices = jax.devices()
    return {
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": platform.node(),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "versions": versions,
        "devices": {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)},
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "commit": _commit(),
    }


def _commit() -> str | None:
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _code(source: str) -> str:
    """A file's code without comments, layout and docstrings: what a change of which changes nothing."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)
