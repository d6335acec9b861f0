"""ONNX files, by jax2onnx: read by ONNX Runtime and others, with any batch.

    pip install 'jaxmodels[export]' && pip install --no-deps jax2onnx==0.17.1

(--no-deps, as its metadata excludes the orbax-checkpoint of this library, which it does not need.)
The converter changes functions of JAX while it traces. What it traces is plain operations, so that none of
those changes matters (see plain_jaxpr), and what it does not put back is put back here.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmodels.export.obstacles import NotExportable, check_operations, naming_the_operation
from jaxmodels.export.plain_jaxpr import replayed
from jaxmodels.export.program import Program
from jaxmodels.runs.files import BadFile, read_bytes

NAME = "model.onnx"
LARGEST = 2**31 - 2**26  # bytes of parameters: a protobuf holds 2 GiB
INSTALL = "pip install 'jaxmodels[export]' && pip install --no-deps jax2onnx==0.17.1"


def encode(program: Program) -> bytes:
    """The content of the file; NotExportable names the operation that stands in the way."""
    _require("jax2onnx")
    if program.bytes() > LARGEST:
        raise NotExportable(
            f"export to onnx: got {program.bytes():,} bytes of parameters; expected at most {LARGEST:,}, as "
            "a file holds 2 GiB. Take --format safetensors"
        )
    function, inputs = program.closed(), program.inputs.abstract()
    kinds = {str(x.dtype) for x in jax.tree.leaves((program.params, program.extra, inputs))}
    if "bfloat16" in kinds:
        raise NotExportable(
            "export to onnx: got parameters in bfloat16; expected float32, in which the two are compared. "
            "Take --precision float32"
        )
    with naming_the_operation("onnx"):
        closed, outputs = jax.make_jaxpr(function, return_shape=True)(inputs)
        check_operations(closed, "onnx")
        with _silent(), _unchanged():
            from jax2onnx import to_onnx

            model: Any = to_onnx(
                replayed(closed),
                [inputs[name] for name in sorted(inputs)],
                input_names=sorted(inputs),
                output_names=sorted(outputs),
            )
        return model.SerializeToString()


def read(path: str | Path) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """The program of a file as a function of a batch, by ONNX Runtime on the CPU.

    The file is read from memory, so that it can name no other file. BadFile says what is wrong with it.
    """
    runtime = _require("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(
            read_bytes(path, limit=2**31), options, providers=["CPUExecutionProvider"]
        )
    except BadFile:
        raise
    except Exception as error:  # of pybind11, one class for each status
        raise BadFile(_damaged(path, error)) from error
    taken = {x.name for x in session.get_inputs()}
    names = [x.name for x in session.get_outputs()]

    def call(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            outputs: Sequence[Any] = session.run(names, {key: x for key, x in batch.items() if key in taken})
        except Exception as error:
            raise BadFile(_damaged(path, error)) from error
        return dict(zip(names, outputs, strict=True))

    return call


def _damaged(path: str | Path, error: Exception) -> str:
    cause = " ".join(str(error).split())[:300]
    return (
        f"{path}: got a file that ONNX Runtime cannot use ({type(error).__name__}: {cause}); expected an "
        "ONNX model, and inputs as in export.json. Export it again"
    )


def _require(name: str) -> Any:
    import importlib

    try:
        with _silent():
            return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"ONNX files need {name}; {INSTALL}") from error


@contextlib.contextmanager
def _unchanged() -> Iterator[None]:
    """Puts back the public functions of JAX and Flax: the converter leaves jax.numpy.cumsum changed."""
    public = [
        module
        for name, module in sys.modules.items()
        if name.partition(".")[0] in ("jax", "flax") and "._" not in name and module is not None
    ]
    before = [(module, name, x) for module in public for name, x in vars(module).items() if callable(x)]
    try:
        yield
    finally:
        for module, name, x in before:
            if vars(module).get(name) is not x:
                setattr(module, name, x)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps what the converter prints and logs of itself from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
