"""A run's folder: what was run, what came out, and who may write to it.

    experiment.py  knobs.json  environment.json   metrics.jsonl   checkpoints/N/   result.json

A folder belongs to one experiment, and one run at a time trains in it. Of several processes, the first one writes.
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
from typing import Any, NamedTuple

from jaxmodels import processes
from jaxmodels.checkpoint import Checkpoints
from jaxmodels.metrics import finite, lines, truncate
from jaxmodels.runs import files
from jaxmodels.runs.files import replacing

LENGTHS = ("steps", "epochs")  # knobs that say how long a run is: a complete run may be made longer


class Identity(NamedTuple):
    """What makes two runs the same: the experiment's code, its knobs, and the options that change the result."""

    source: str
    knobs: Mapping[str, Any]
    options: Mapping[str, Any]


class Folder:
    """One run's folder, held by this process until it is closed."""

    def __init__(self, path: Path, *, keep: int, warn: Any = print):
        self.path = Path(path)
        self.checkpoints = Checkpoints(self.path / "checkpoints", keep=keep, warn=warn)
        self._lock: Any = None
        self.longer: list[dict[str, Any]] = []  # each time that the complete run was made longer: at which step, which knob
        self._lengthen: Identity | None = None

    def open(self, identity: Identity, *, fresh: bool = False, force: bool = False) -> bool:
        """Takes the folder; True where it holds a run of this experiment to go on with.

        fresh: an old run is moved aside, to NAME.1 and so on. force: go on with it though it is another experiment's. A
        complete run whose experiment differs by more steps alone is gone on with; see go_on_longer.
        """
        return processes.by_first(lambda: self._open(identity, fresh, force))

    def _open(self, identity: Identity, fresh: bool, force: bool) -> bool:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._take()
        except OSError as error:
            raise ValueError(
                f"the run's folder {self.path} cannot be written: {error.strerror or error}. Choose another one with "
                "--folder, or change its permissions"
            ) from error
        if fresh and (self.path / "knobs.json").exists():
            self._set_aside()
        known = (self.path / "knobs.json").exists()
        if known:
            with contextlib.suppress(ValueError):
                self.longer = read_json(self.path / "knobs.json").get("longer", [])
        if known and not force and not self._is_longer(identity):
            self._check(identity)
        self.checkpoints.clean()
        if not known or force:
            self._write("experiment.py", identity.source)
            self._write_knobs(identity)
        return known and bool(self.checkpoints.steps())

    def _write_knobs(self, identity: Identity) -> None:
        record = {"longer": self.longer} if self.longer else {}
        value = {"knobs": identity.knobs, "options": identity.options, **record}
        self._write("knobs.json", json.dumps(value, indent=1, default=str))

    def _is_longer(self, identity: Identity) -> bool:
        """Whether this is the folder's complete run with more steps, and nothing else changed."""
        old, new = read_json(self.path / "knobs.json"), _as_json(identity)
        changed = [k for k in {*old["knobs"], *new["knobs"]} if old["knobs"].get(k) != new["knobs"].get(k)]
        if len(changed) != 1 or changed[0] not in LENGTHS or old["options"] != new["options"]:
            return False
        before, after = old["knobs"].get(changed[0]), new["knobs"].get(changed[0])
        same_code = _code(files.read_text(self.path / "experiment.py")) == _code(identity.source)
        more = type(before) is type(after) is int and after > before
        if not (same_code and more and self.result().get("exit") == "complete" and self.checkpoints.steps()):
            return False
        self._lengthen = identity
        return True

    def go_on_longer(self, step: int) -> str:
        """Writes down that the complete run goes on from this step with more steps, and gives what is to be said of it; ""
        where it does not. Called when the state has been restored, so that nothing changes where it cannot be."""
        identity, self._lengthen = self._lengthen, None
        if identity is None:
            return ""
        before, after = read_json(self.path / "knobs.json")["knobs"], identity.knobs
        [name] = [k for k in LENGTHS if before.get(k) != after.get(k)]
        self.longer = [*self.longer, {"step": step, "knob": name, "from": before[name], "to": after[name]}]
        self._write_knobs(identity)
        (self.path / "result.json").unlink(missing_ok=True)  # of the shorter run: a reader would take this one for complete
        return (
            f"the complete run of {name} {before[name]:,} goes on to {name} {after[name]:,}: from step {step:,} on its "
            f"schedules are those of the longer run. The result is not that of one run of {name} {after[name]:,}, unless no "
            f"schedule depends on {name}"
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

    def _check(self, identity: Identity) -> None:
        """Raises where the folder holds another experiment, with what differs."""
        old, new = read_json(self.path / "knobs.json"), _as_json(identity)
        changes = [
            f"{name}: {before.get(name, '(absent)')} there, {after.get(name, '(absent)')} here"
            for before, after in ((old["knobs"], new["knobs"]), (old["options"], new["options"]))
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
        source = files.read_text(self.path / "experiment.py")
        if _code(source) != _code(identity.source):
            lines = difflib.unified_diff(source.splitlines(), identity.source.splitlines(), lineterm="", n=0)
            changed = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---") and line[1:].strip()]
            changes += [
                "the experiment's file:",
                *(f"  {line}" for line in changed[:8]),
                *(["  …"] if len(changed) > 8 else []),
            ]
        if changes:
            raise ValueError(
                f"{self.path} holds another experiment:\n  "
                + "\n  ".join(changes)
                + "\nChoose another --folder, start over "
                "in this one with --fresh (the old run is kept, renamed), or go on with the old run's parameters under the "
                "new experiment with --force"
            )

    def environment(self) -> dict[str, Any]:
        """What environment.json says of the newest start; {} before the first."""
        path = self.path / "environment.json"
        return read_json(path) if path.is_file() else {}

    def write_environment(self, **more: Any) -> None:
        """Versions, devices, command and commit of this start."""
        if processes.first():
            self._write("environment.json", json.dumps({**describe_environment(), **more}, indent=1, default=str))

    def resume_metrics(self, step: int) -> None:
        """Drops what the log says of steps after the restored one."""
        if processes.first():
            truncate(self.path / "metrics.jsonl", step)

    def logged(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, in every process; to be called after resume_metrics."""
        return processes.by_first(lambda: lines(self.path / "metrics.jsonl"))

    def result(self) -> dict[str, Any]:
        """What result.json says; {} before the first end, or where it cannot be read."""
        path = self.path / "result.json"
        with contextlib.suppress(ValueError):
            return read_json(path) if path.is_file() else {}
        return {}

    def write_result(self, result: Mapping[str, Any]) -> None:
        """The final metrics and how the run ended."""
        if processes.first():
            self._write("result.json", json.dumps(finite(result), indent=1, default=str))

    def write_picture(self, name: str, pixels: Any) -> Path:
        """Writes pictures/<name>.png: uint8, height x width x 1 or 3."""
        file = files.inside(self.path, f"pictures/{name}.png")
        file.parent.mkdir(exist_ok=True)
        return write_png(file, pixels)

    def _write(self, name: str, text: str) -> None:
        files.write_text(self.path / name, text)


def _as_json(identity: Identity) -> dict[str, Any]:
    return json.loads(json.dumps({"knobs": identity.knobs, "options": identity.options}, default=str))


def write_png(path: Path, pixels: Any) -> Path:
    """Writes a picture: uint8, height x width x 1 or 3."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("writing pictures needs pillow; pip install 'jaxmodels[data]'") from error
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    with replacing(path) as file:
        Image.fromarray(pixels).save(file, "PNG")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of the run's folder."""
    try:
        return files.read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. Delete it to go on without it, or start over with --fresh") from error


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
        return subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=True).stdout.strip()

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
