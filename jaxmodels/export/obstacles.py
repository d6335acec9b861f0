"""Why a model cannot be exported: the operation that stands in the way, and where it was written."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from jaxmodels.runs.files import BadFile

LIBRARIES = ("jax", "flax", "jaxlib", "jax2onnx", "onnx_ir", "optax", "numpy")
SYMBOLIC = ("_DimExpr", "ymbolic dim", "InconclusiveDimension", "polymorphi", "concrete values")


class NotExportable(BadFile):
    """A model that a format cannot hold; the message names the operation."""


@contextmanager
def naming_the_operation(format: str) -> Iterator[None]:
    """What fails inside is raised as NotExportable, with the line of the model that it failed at."""
    try:
        yield
    except NotExportable:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        cause = " ".join(str(error).split())[:200]
        if any(word in said for word in SYMBOLIC):
            got = "an operation that depends on the number of examples, or on their length"
            do = "Use x.shape[0] for len(x), no Python loop over an axis, or fix the length with --like"
        else:
            got, do = "an operation that it cannot hold", "Write this part of the model with other operations"
        raise NotExportable(
            f"export to {format}: got {got}, {_place(error)} ({cause}); expected operations that {format} "
            f"has. {do}"
        ) from error


def check_operations(closed: Any, format: str) -> None:
    """Raises NotExportable for a jaxpr that calls back into Python."""
    for eqn in equations(closed):
        if "callback" in eqn.primitive.name or eqn.primitive.name in ("infeed", "outfeed"):
            raise NotExportable(
                f"export to {format}: got the operation {eqn.primitive.name}, "
                f"{_of_equation(eqn)}, which runs Python; expected operations that a program without it "
                "has. Take it out of the model, or compute it before"
            )


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a jaxpr, and of those inside."""
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield eqn
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def _of_equation(eqn: Any) -> str:
    trace = getattr(eqn.source_info, "traceback", None)
    frames = [(f.file_name, f.line_num) for f in trace.frames] if trace is not None else []
    own = next(((name, line) for name, line in frames if _is_of_a_model(name)), None)
    return f"at {_short(own[0])}:{own[1]}" if own else f"in {eqn.source_info.name_stack or 'the model'}"


def _place(error: BaseException) -> str:
    """The innermost line of the traceback that is a model's own, as text."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_of_a_model(f.filename)]
    frames = [f for f in frames if f"{Path('jaxmodels', 'export')}" not in f.filename]
    if not frames:
        return "which is not one line's of the model"
    return f"{(frames[-1].line or '').strip()!r} at {_short(frames[-1].filename)}:{frames[-1].lineno}"


def _is_of_a_model(file: str) -> bool:
    parts = Path(file).parts
    return "site-packages" not in parts or not {*parts} & {*LIBRARIES}


def _short(file: str) -> str:
    return "/".join(Path(file).parts[-3:])
