"""Options given as words: one check, which every such option of a model, a task, data or an optimizer goes through."""

from __future__ import annotations

import types
from difflib import get_close_matches
from functools import cache
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
