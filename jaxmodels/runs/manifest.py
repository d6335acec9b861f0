"""What a checkpoint's folder says of itself, and whether that is still true.

    identity.json   the run's id, the step, and whether it was the best so far
    manifest.json   size and sha256 of every other file, identity.json among them

Every changed bit is found: in a listed file by its digest; in a name of the manifest by the file that is then
missing; in the rest of the manifest by a size or a digest that fits no more, or because seal() does not write
it so. A folder that was renamed, copied under another number or taken from another run is found by its
identity.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import NamedTuple

from jaxmodels.runs import files
from jaxmodels.runs.checksummed_json import Damaged

MANIFEST, IDENTITY = "manifest.json", "identity.json"
LIMIT = 1 << 30  # bytes of a manifest, a note or a list of arrays: a line for each of a state's files


class CheckpointIdentity(NamedTuple):
    """Whose checkpoint it is. run: the run's id; None where it was saved outside a run's folder."""

    run: str | None
    step: int
    best: bool


def seal(folder: Path, digests: dict[str, tuple[int, str]]) -> None:
    """Writes the manifest; digests: of every file of the folder (see digests_of)."""
    files.write_text(folder / MANIFEST, json.dumps(digests))


def write_identity(folder: Path, identity: CheckpointIdentity) -> None:
    """To be written before the manifest, which covers it."""
    files.write_text(folder / IDENTITY, json.dumps(identity._asdict()))


def read_identity(folder: Path) -> CheckpointIdentity:
    """What a checkpoint says of itself; raises Damaged where it cannot be read."""
    try:
        said = files.read_json(folder / IDENTITY)
        if set(said) != set(CheckpointIdentity._fields):
            raise ValueError(f"it names {', '.join(said) or 'nothing'}")
        identity = CheckpointIdentity(**said)
        if type(identity.step) is not int or type(identity.best) is not bool:
            raise ValueError(f"its step is {identity.step!r}, its best {identity.best!r}")
    except FileNotFoundError as error:
        raise Damaged(
            f"checkpoint {folder.name}: file {IDENTITY} is missing, which says of which run and step it is; "
            "development versions before 0.1 wrote none"
        ) from error
    except (OSError, ValueError) as error:
        raise Damaged(f"checkpoint {folder.name}: its {IDENTITY} cannot be read ({error})") from error
    return identity


def verify(folder: Path, step: int, *, run: str | None = None, contents: bool = True) -> CheckpointIdentity:
    """Compares a checkpoint's folder with its manifest and identity.

    Raises Damaged with the first difference.

    run: the id that it must have; None takes any. contents: also of each file; else names and sizes alone.
    """
    name = f"checkpoint {folder.name}"
    wanted = _read_manifest(folder, name)
    found = _sizes(folder, name)
    for file in sorted(found.keys() - wanted.keys() - {MANIFEST}):
        raise Damaged(f"{name}: file {file} is there; the manifest does not list it")
    for file, (size, digest) in wanted.items():
        if file not in found:
            raise Damaged(f"{name}: file {file} is missing")
        if found[file] != size:
            raise Damaged(f"{name}: file {file} has {found[file]} bytes, was written with {size}")
        if contents and _sha256(folder / file) != digest:
            raise Damaged(f"{name}: the content of file {file} has changed since it was written")
    identity = read_identity(folder)
    if identity.step != step:
        raise Damaged(
            f"{name}: it is that of step {identity.step}, renamed or copied; expected that of step {step}"
        )
    if run is not None and identity.run != run:
        raise Damaged(
            f"{name}: it was saved by another run ({identity.run}); expected one of this run ({run})"
        )
    return identity


def _read_manifest(folder: Path, name: str) -> dict[str, tuple[int, str]]:
    try:
        text = files.read_text(folder / MANIFEST, limit=LIMIT)
        said = json.loads(text)
        if text != json.dumps(said):
            raise ValueError("it is not as it was written")
        wanted = {file: (size, digest) for file, (size, digest) in said.items()}
        if not wanted:
            raise ValueError("empty")
        if any(type(size) is not int or type(digest) is not str for size, digest in wanted.values()):
            raise ValueError("a size or a digest is of another type")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise Damaged(f"{name}: its {MANIFEST} cannot be read ({reason})") from error
    return wanted


def digests_of(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and sha256 of every file below the folder, by its path in it."""
    return {
        file: (size, _sha256(folder / file)) for file, size in sorted(_sizes(folder, str(folder)).items())
    }


def _sizes(folder: Path, name: str) -> dict[str, int]:
    """The size of every file below the folder.

    Links and special files, which no checkpoint has, are damage.
    """
    sizes: dict[str, int] = {}
    for at, folders, names in os.walk(folder):
        for entry in (*names, *folders):
            path = Path(at, entry)
            try:
                mode = path.lstat()
            except FileNotFoundError:  # removed just now: missing, where it was listed
                continue
            if stat.S_ISREG(mode.st_mode):
                sizes[path.relative_to(folder).as_posix()] = mode.st_size
            elif not stat.S_ISDIR(mode.st_mode):
                raise Damaged(
                    f"{name}: {path.relative_to(folder)} is a link, a pipe or a device; expected a regular "
                    "file"
                )
    return sizes


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""  # removed just now
