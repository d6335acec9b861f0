"""Where data sets are on disk, and whether their files are the expected ones. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

PathLike = str | os.PathLike[str]
Files = Mapping[str, tuple[int | None, str | None]]  # by name: the size in bytes and the sha256; None: any


def folder(name: str, given: PathLike | None = None) -> Path:
    """The folder of a data set: `given`, else $JAXMODELS_DATA/name, else ~/.cache/jaxmodels/data/name."""
    if given is not None:
        return Path(given)
    root = os.environ.get("JAXMODELS_DATA")
    return (Path(root) if root else Path.home() / ".cache" / "jaxmodels" / "data") / name


def check(folder: Path, files: Files, *, where: str) -> None:
    """Raises unless the folder holds these files. where: the source to get them from, for the error."""
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: got no {', '.join(missing)}; expected {', '.join(files)}. Get them from {where}, and "
            "put them there or set $JAXMODELS_DATA to the folder that holds the data set's folder"
        )
    for name, (size, digest) in files.items():
        path = folder / name
        got_size = path.stat().st_size
        if size is not None and got_size != size:
            raise ValueError(
                f"{path}: got {got_size:,} bytes; expected {size:,}. Replace it by the file from {where}"
            )
        if digest is not None:
            with path.open("rb") as file:
                got = hashlib.file_digest(file, "sha256").hexdigest()
            if got != digest:
                raise ValueError(
                    f"{path}: got sha256 {got}; expected {digest}. Replace it by the file from {where}"
                )
