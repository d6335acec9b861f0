"""One file with a program and its parameters, which a process with nothing but jax loads:

    from jax import export
    program = export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
    outputs = program.call({"image": images})  # arrays by name

jax keeps what it writes readable for six months backwards and three weeks forwards; see jax.export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jax import export

from jaxmodels.export.obstacles import NotExportable, check_operations, naming_the_operation
from jaxmodels.export.program import Program
from jaxmodels.runs.files import BadFile, read_bytes

NAME = "model.stablehlo"
LARGEST = 2**31 - 2**26  # bytes of parameters: a flatbuffer holds 2 GiB, and the program needs room
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

Call = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def encode(program: Program, platforms: Sequence[str]) -> bytes:
    """The content of the file; NotExportable names the operation that stands in the way."""
    _require_flatbuffers()
    if not platforms or not {*platforms} <= {*PLATFORMS}:
        raise ValueError(
            f"--platforms: got {','.join(platforms)!r}; expected some of {', '.join(PLATFORMS)}. Name those "
            "that the program will run on"
        )
    if (here := export.default_export_platform()) not in platforms:
        raise ValueError(
            f"--platforms: got {','.join(platforms)} on a machine with {here}; expected {here} too, where "
            f"the program is compared with the model. Add {here}"
        )
    if program.bytes() > LARGEST:
        raise NotExportable(
            f"export to stablehlo: got {program.bytes():,} bytes of parameters; expected at most "
            f"{LARGEST:,}, as a file holds 2 GiB. Take --precision bfloat16, or --format safetensors"
        )
    function, inputs = jax.jit(program.closed()), program.inputs.abstract()
    with naming_the_operation("stablehlo"):
        check_operations(function.trace(inputs).jaxpr, "stablehlo")
        return bytes(export.export(function, platforms=list(platforms))(inputs).serialize())


def read(path: str | Path) -> Call:
    """The program of a file as a function of a batch; BadFile says what is wrong with the file."""
    _require_flatbuffers()
    content = read_bytes(path, limit=2**31)
    try:
        exported = export.deserialize(bytearray(content))
    except Exception as error:  # flatbuffers and MLIR raise errors of every kind
        raise BadFile(_damaged(path, error)) from error
    if (here := export.default_export_platform()) not in exported.platforms:
        raise BadFile(
            f"{path}: got a program for {', '.join(exported.platforms)}; expected one for {here}, which is "
            "here. Export it for this platform too"
        )
    program = jax.jit(exported.call)

    def call(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            outputs = program(dict(batch))
        except Exception as error:  # also of XLA, which compiles it now
            raise BadFile(_damaged(path, error)) from error
        return {str(name): np.asarray(x) for name, x in outputs.items()}

    return call


def _damaged(path: str | Path, error: Exception) -> str:
    cause = " ".join(str(error).split())[:200]
    return (
        f"{path}: got a file that jax cannot use ({type(error).__name__}: {cause}); expected a program that "
        "`jaxmodels export` wrote, and inputs as in export.json. Export it again"
    )


def _require_flatbuffers() -> None:
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise ImportError("StableHLO files need flatbuffers; pip install 'jaxmodels[export]'") from error
