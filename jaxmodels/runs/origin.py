"""Whether a folder is a run or weights from elsewhere, and whether its code can be trusted.

Runs nothing of it.

A run's folder is code: experiment.py in it is run by whatever builds the run's model. A folder of weights is
data, and is never run. One that looks like both might have been made to have its code run, so it is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxmodels.runs.files import BadFile

RUN = ("knobs.json", "experiment.py")
CODE, MANY = (
    "code",
    10_000,
)  # the folder of modules that the experiment imports, and how many files are looked at
_SAID: set[str] = set()  # warnings of this process
WEIGHTS = (
    "config.json",
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
TENSORS = (
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".gguf",
    ".h5",
    ".msgpack",
)  # ends of names of files of weights


def is_weights(path: str | os.PathLike[str]) -> bool:
    """Whether this is a model from elsewhere, in a folder or a file; False for a run, and for anything else.

    Raises ValueError for a folder that looks like both.
    """
    path = Path(path)
    if not path.is_dir():
        return path.suffix == ".bin"
    run, weights = _found(path)
    if run and weights:
        raise BadFile(
            f"{path}: got a folder with {run} of a run and {weights} of a model from elsewhere; expected "
            "one of the two, as a run's experiment.py is executed and a model's folder never is. Remove "
            f"{run} to use the weights, or {weights} if you trust the run's code"
        )
    return bool(weights) and not run


def check_run(path: str | os.PathLike[str], warn: Callable[[str], None]) -> Path:
    """The folder, if it is a run's whose experiment.py may be executed (see check_code).

    Else raises ValueError.
    """
    path = Path(path)
    if is_weights(path):
        raise ValueError(
            f"{path}: got a model from elsewhere; expected a run's folder. Give the one that `jaxmodels "
            "train` named last"
        )
    if not path.is_dir():
        raise ValueError(
            f"{path}: got no such folder; expected a run's. Give the one that `jaxmodels train` named last"
        )
    if not os.path.lexists(path / "knobs.json"):
        raise ValueError(
            f"{path} is not a run's folder: it has no knobs.json. Give the folder that `jaxmodels train` "
            "named last"
        )
    check_code(path, warn)
    return path


def check_code(folder: str | os.PathLike[str], warn: Callable[[str], None]) -> None:
    """Checks a run's files before its experiment.py is executed.

    Warns once where others could have written them.

    Raises ValueError for a folder that looks like weights too, and for a link or a special file in place of
    its files.
    """
    folder = Path(folder)
    is_weights(folder)
    code = _code(folder)
    for path in (*(folder / name for name in RUN), *code):
        if not os.path.lexists(path):
            continue
        if not stat.S_ISREG(path.lstat().st_mode) and not (
            path in code and stat.S_ISDIR(path.lstat().st_mode)
        ):
            what = "a link" if path.is_symlink() else "a folder, a pipe or a device"
            raise BadFile(
                f"{path}: got {what}; expected the regular file that `jaxmodels train` wrote. Copy the file "
                "here, if you trust it"
            )
    if (why := _foreign((folder, *code))) and why not in _SAID:
        _SAID.add(why)
        warn(
            f"{why}, and the run's experiment.py is executed now. Use runs only of people whose code you "
            "would execute yourself"
        )


def _found(folder: Path) -> tuple[str, str]:
    """(a name that only a run has, a name that only weights have), "" where there is none.

    Links count as well.
    """
    names = sorted(os.listdir(folder))
    run = next((name for name in RUN if name in names), "")
    weights = next((name for name in WEIGHTS if name in names), "")
    return run, weights or next((name for name in names if name.endswith(TENSORS)), "")


def _code(folder: Path) -> list[Path]:
    """What may be executed of the folder: Python beside the experiment's file, and everything in code/."""
    found = sorted(folder.glob("*.py"))
    if os.path.lexists(folder / CODE):
        found.append(folder / CODE)
    for parent, folders, files in os.walk(folder / CODE):  # follows no link
        found += [Path(parent, name) for name in sorted([*folders, *files])]
        if len(found) > MANY:
            raise BadFile(
                f"{folder / CODE}: got more than {MANY:,} files; expected the run's own modules. Remove the "
                "others"
            )
    return found


def _foreign(paths: Sequence[Path]) -> str:
    """Who else could have written the run's code, as the beginning of a sentence; "" for nobody."""
    for path in paths:
        facts = path.lstat()
        if facts.st_uid != os.geteuid():
            return f"{path} belongs to another user ({_name(facts.st_uid)})"
        if facts.st_mode & stat.S_IWOTH:
            return f"{path} can be written by every user of this computer"
    return ""


def _name(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return str(uid)
