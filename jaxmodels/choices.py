"""What may be given, checked in one place: words that are options, and keys that a batch must have."""

from __future__ import annotations

import linecache
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from itertools import islice
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def check(where: str, name: str, got: Any, choices: Any) -> None:
    """ValueError unless `got` is one of `choices`: a Literal, or a sequence of what may be given."""
    expected = get_args(choices) if get_origin(choices) is Literal else tuple(choices)
    if any(type(got) is type(choice) and got == choice for choice in expected):
        return
    words = [choice for choice in expected if isinstance(choice, str)]
    near = get_close_matches(got, words, 1) if isinstance(got, str) else []
    what = f"give {name}={near[0]!r}, if that is meant" if near else "give one of them"
    raise ValueError(
        f"{where}: got {name}={got!r}; expected one of {', '.join(map(repr, expected))}. Do {what}"
    )


@cache
def of_fields(owner: type) -> dict[str, Any]:
    """The fields of a class that are annotated as a Literal, or as one or None, with the Literal."""
    found = {name: _literal(hint) for name, hint in get_type_hints(owner).items()}
    return {name: kind for name, kind in found.items() if kind is not None}


def _literal(hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return hint
    if get_origin(hint) in (Union, types.UnionType):
        return next((part for part in get_args(hint) if get_origin(part) is Literal), None)
    return None


@contextmanager
def explain_missing_key(batch: Mapping[str, Any]) -> Iterator[None]:
    """Turns the KeyError of a task that reads a key which the batch lacks into a ValueError with advice."""
    try:
        yield
    except KeyError as error:
        key = error.args[0] if error.args else None
        if not isinstance(key, str) or key in batch or not _is_subscript_of(batch):
            raise
        close = get_close_matches(key, [name for name in batch if name != "weight"], n=1, cutoff=0.6)
        inputs = [name for name in batch if name not in ("weight", "label", "target")]
        action = f"Rename {close[0]!r} to {key!r} in the data" if close else f"Give the data a {key!r}"
        if inputs and not close:
            action += f" or, where that is the model's input, give the task its name: inputs={inputs[0]!r}"
        names = ", ".join(map(repr, sorted(batch)))
        raise ValueError(
            f"the task reads batch[{key!r}]: got batches with {names}; expected {key!r} among them. {action}."
        ) from error


def _is_subscript_of(batch: Mapping[str, Any]) -> bool:
    """Whether the error being handled comes from `variable[key]`, the variable being such a batch."""
    trace = sys.exc_info()[2]
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_code
    line, _, begin, end = next(islice(code.co_positions(), trace.tb_lasti // 2, None))
    source = linecache.getline(code.co_filename, line or 0).encode()[begin:end].decode(errors="replace")
    variable = trace.tb_frame.f_locals.get(source.partition("[")[0].strip())
    return isinstance(variable, Mapping) and {*map(str, variable)} == {*batch}
