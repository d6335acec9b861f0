"""Where data sets lie on disk, and whether what lies there is what was expected. Nothing here downloads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path


def folder(name: str, given: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a data set: the one given, else $JAXMODELS_DATA/name, else ~/.cache/jaxmodels/data/name."""
    if given is not None:
        return Path(given)
    root = os.environ.get("JAXMODELS_DATA")
    return (Path(root) if root else Path.home() / ".cache" / "jaxmodels" / "data") / name


def check(folder: Path, files: Mapping[str, tuple[int, str | None]], *, where: str) -> None:
    """Raises unless the folder holds these files, each of the given size in bytes and sha256 (None: not checked).

    where: where to get them, for the error's text.
    """
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}; wanted are {', '.join(files)}; get them from {where}, and put them there "
            "or set $JAXMODELS_DATA to the folder that holds the data set's folder"
        )
    for name, (size, digest) in files.items():
        path = folder / name
        found = path.stat().st_size
        if found != size:
            raise ValueError(
                f"{path} has {found:,} bytes, wanted {size:,}: got another file; expected the one from {where}. Replace it"
            )
        if digest is not None:
            with path.open("rb") as file:
                got = hashlib.file_digest(file, "sha256").hexdigest()
            if got != digest:
                raise ValueError(
                    f"{path} has sha256 {got}, wanted {digest}: got another file; expected the one from {where}. Replace it"
                )
