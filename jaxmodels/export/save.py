"""A folder with an exported model: the model's file, export.json beside it, and a tokenizer's files.

The folder is there once it is complete and compared with the model, and not before.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import jax

from jaxmodels.convert.save import COMPANIONS
from jaxmodels.export import onnx, stablehlo
from jaxmodels.export.compare import largest_difference
from jaxmodels.export.program import Program
from jaxmodels.runs import files
from jaxmodels.runs.metrics_file import finite

Format = Literal["stablehlo", "onnx"]
ABOUT = "export.json"


class Exported(NamedTuple):
    """What was written. difference: the largest from the model on random inputs, relative to its outputs."""

    folder: Path
    file: Path
    parameters: int
    bytes: int
    difference: float


def save(
    program: Program,
    out: str | os.PathLike[str],
    format: Format,
    platforms: Sequence[str],
    version: str,
    source: Path | None = None,
) -> Exported:
    """Writes the program to the new folder `out`; NotExportable says why a model cannot be written.

    source: the folder whose files of a tokenizer, and of how images are prepared, are copied beside it.
    """
    if format not in get_args(Format):
        raise ValueError(
            f"--format: got {format!r}; expected one of {', '.join(get_args(Format))}. Name one of those"
        )
    with new_folder(out) as folder:
        module = stablehlo if format == "stablehlo" else onnx
        path = folder / module.NAME
        content = stablehlo.encode(program, platforms) if format == "stablehlo" else onnx.encode(program)
        files.write_bytes(path, content)
        difference = largest_difference(program, module.read(path), format)
        leaves = jax.tree.leaves((program.params, program.extra))
        parameters = sum(x.size for x in leaves)
        inputs = program.inputs
        about = {
            "format": format,
            "file": path.name,
            "sha256": _digest(path),
            "inputs": inputs.described(),
            "limits": {name: list(limits) for name, limits in inputs.limits.items()},
            **({"platforms": list(platforms)} if format == "stablehlo" else {}),
            "parameters": parameters,
            "difference": difference,
            "versions": {"jaxmodels": version, "jax": jax.__version__},
            **program.about,
        }
        files.write_text(folder / ABOUT, json.dumps(finite(about), indent=1) + "\n")
        for companion in COMPANIONS:
            if source is not None and (source / companion).is_file():
                shutil.copyfile(source / companion, folder / companion)
        size = path.stat().st_size
    return Exported(Path(out), Path(out) / path.name, parameters, size, difference)


@contextmanager
def new_folder(out: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder with a temporary name, which gets its own at the end, and is removed where something fails."""
    out = Path(out)
    if os.path.lexists(out):
        raise ValueError(
            f"{out}: got a folder or a file that exists; expected a new folder, so that nothing is "
            "overwritten. Choose another"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o777 & ~files.umask())
        folder.rename(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
