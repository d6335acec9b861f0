"""An exported folder, opened where this library is: checked before its program is used.

Programs are data, and jax and ONNX Runtime read them in C++, which trusts what it reads: use files of people
whose code you would run. Damage is found by the digest in export.json.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodels.export import onnx, stablehlo
from jaxmodels.export.inputs import Inputs
from jaxmodels.runs.files import BadFile, inside, open_reading, read_json

READERS = {"stablehlo": stablehlo, "onnx": onnx}


def read_exported(
    folder: str | os.PathLike[str],
) -> tuple[Callable[[Mapping[str, Any]], dict[str, np.ndarray]], dict[str, Any]]:
    """(a function of a batch that gives the outputs, both arrays by name; what export.json says).

    The function checks a batch's names, types and sizes first. ValueErrors say what is wrong.
    """
    path = Path(folder) / "export.json"
    about = read_json(path)
    reader = READERS.get(str(about.get("format")))
    if reader is None:
        raise BadFile(
            f"{path}: got the format {str(about.get('format'))[:40]!r}; expected one of "
            f"{', '.join(READERS)}. Give the folder of an exported program"
        )
    inputs = _inputs(path, about)
    file = inside(folder, reader.NAME)
    with open_reading(file) as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
    if digest != about.get("sha256"):
        raise BadFile(
            f"{file}: got a file that is not the one which export.json is about, by its sha256; expected "
            "what was written. Copy both again from where they were intact"
        )
    program = reader.read(file)

    def call(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        inputs.check(batch)
        return program(batch)

    return call, about


def _inputs(path: Path, about: Mapping[str, Any]) -> Inputs:
    """What export.json says of the inputs, checked."""
    try:
        described, limits = dict(about["inputs"]), dict(about["limits"])
        shapes = {str(key): tuple(x["shape"]) for key, x in described.items()}
        dtypes = {str(key): np.dtype(str(x["dtype"])) for key, x in described.items()}
        bounds = {str(name): (int(low), int(high)) for name, (low, high) in limits.items()}
        if not shapes or not all(type(axis) in (int, str) for axes in shapes.values() for axis in axes):
            raise ValueError("inputs without shapes")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile(
            f"{path}: got no description of inputs ({type(error).__name__}: {str(error)[:80]}); expected "
            "what `jaxmodels export` wrote. Export the model again"
        ) from error
    return Inputs(shapes, dtypes, bounds)
