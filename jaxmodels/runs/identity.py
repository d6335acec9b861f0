"""Which run a folder holds: its id, which its checkpoints carry, and the digests of the files that define it.

    run.json   {"run": id, "files": {"experiment.py": [sha256], "knobs.json": [sha256]}}, with a checksum

It is written last when a run begins in the folder, so a folder without it holds no run yet. A copied folder
keeps its id.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path

from jaxmodels.runs import checksummed_json, files
from jaxmodels.runs.checksummed_json import Damaged
from jaxmodels.runs.code import FOLDER as CODE
from jaxmodels.runs.code import read_beside

RUN = "run.json"


def new_id() -> str:
    """An id that no other run has."""
    return secrets.token_hex(8)


def write(folder: Path, run: str, contents: Mapping[str, bytes]) -> None:
    """Writes the files that say what was run, and notes the run's id and their digests.

    A kill leaves each file as it was or as it is to be, and a note that holds for both.
    """
    digests = {name: [hashlib.sha256(content).hexdigest()] for name, content in contents.items()}
    if (folder / RUN).exists():
        old = checksummed_json.read(folder / RUN)["files"]
        both = {name: [*of, *old.get(name, [])] for name, of in digests.items()}
        checksummed_json.write(folder / RUN, {"run": run, "files": both})
    for name, content in contents.items():
        path = files.inside(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path, content, durable=True)
    for name in read_beside(folder):
        if f"{CODE}/{name}" not in contents:  # of another experiment that was here
            files.inside(folder, f"{CODE}/{name}").unlink()
    checksummed_json.write(folder / RUN, {"run": run, "files": digests})


def read(folder: Path) -> str:
    """The run's id; raises Damaged where run.json is not what was written, or absent."""
    if not (folder / RUN).exists():
        raise Damaged(
            f"{folder} has no {RUN}, which says whose its checkpoints are: it is lost, or a development "
            "version before 0.1 wrote the folder. Copy it back from where it was intact, or start over "
            "with --fresh (the old run is kept, renamed)"
        )
    return str(checksummed_json.read(folder / RUN).get("run"))


def verify(folder: Path) -> str:
    """The run's id, after its files were compared with their digests.

    Raises Damaged with the first that differs.
    """
    run = read(folder)
    for name, digests in checksummed_json.read(folder / RUN)["files"].items():
        try:
            now = _sha256(files.inside(folder, name))
        except (OSError, ValueError) as error:
            raise Damaged(f"{folder / name} cannot be read ({error}). {_CURE}") from error
        if now not in digests:
            raise Damaged(
                f"{folder / name} is damaged: its content has changed since the run wrote it. {_CURE}"
            )
    return run


_CURE = (
    "Copy it back from where it was intact; or train on with your own file and --force, which writes it "
    "anew; or start over with --fresh (the old run is kept, renamed)"
)


def _sha256(path: Path) -> str:
    return hashlib.sha256(files.read_bytes(path)).hexdigest()
