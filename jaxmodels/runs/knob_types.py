"""Values of knobs by their declared types: checked, as JSON and the command line have them, and back.

Types: int, float, str, bool, None, Literal, Enum (JSON and the command line have a member's name), Path (kept
as given), dataclasses of these, tuple, list and dict of these, and unions such as Optional. Others are
refused when a file is loaded, since a run could not give them back.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

SIMPLE: dict[Any, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}
LISTS = (tuple, list, Sequence)
DICTS = (dict, Mapping)


def check_types(path: Any, config: type) -> None:
    """Raises ValueError for a knob whose type or default a run's folder could not give back."""
    for field in dataclasses.fields(config):
        hint = get_type_hints(config)[field.name]
        if (unsupported := _unsupported(hint)) is not None:
            raise ValueError(
                f"{path}: got the knob {field.name} of type {type_name(unsupported)}; expected int, float, "
                "str, bool, Literal, Enum, Path, a dataclass, or tuple, list, dict or Optional of them, "
                "which a "
                "run's folder can give back. Use a name or a number for it, and make the object in build()"
            )
    default = config()
    for name, value in plain(default).items():
        hint, own = get_type_hints(config)[name], getattr(default, name)
        try:
            same = _fits(value, hint) and restored(json.loads(json.dumps(value)), hint) == restored(own, hint)
        except (TypeError, ValueError):
            same = False
        if not same and own == own:  # not nan
            raise ValueError(
                f"{path}: got {own!r} as the default of the knob {name}; expected a value of its type, "
                f"{type_name(hint)}, that JSON can hold. Change the default or the type"
            )


def _unsupported(hint: Any) -> Any:
    """The part of a type that is not supported; None where all of it is."""
    hint = _bare(hint)
    origin = get_origin(hint) or hint
    if (
        hint in (Any, type(None), None)
        or origin is Literal
        or hint in SIMPLE
        or _is(hint, enum.Enum, PurePath)
    ):
        return None
    if dataclasses.is_dataclass(hint):
        return next(
            (
                unsupported
                for h in get_type_hints(hint).values()
                if (unsupported := _unsupported(h)) is not None
            ),
            None,
        )
    if origin in (*LISTS, *DICTS) or _is_union(hint):
        parts = [h for h in get_args(hint) if h is not ...]
        if origin in DICTS and parts and _bare(parts[0]) is not str:
            return hint
        return next((unsupported for h in parts if (unsupported := _unsupported(h)) is not None), None)
    return hint


def check_type(name: str, value: Any, hint: Any) -> None:
    """Raises ValueError where a value is not of the declared type."""
    if not _fits(value, hint):
        if get_origin(hint) is Literal:
            expected = f"one of {', '.join(map(repr, get_args(hint)))}"
        elif _is(hint, enum.Enum):
            expected = f"one of {', '.join(map(repr, hint.__members__))}"
        else:
            expected = type_name(hint)
        raise ValueError(
            f"{name}: got {value!r} ({type(value).__name__}); expected {expected}. Change the value"
        )


def _fits(value: Any, hint: Any) -> bool:
    hint = _bare(hint)
    origin, parts = get_origin(hint) or hint, get_args(hint)
    if origin is Literal:
        return any(value == known and type(value) is type(known) for known in parts)
    if hint in SIMPLE:
        return isinstance(value, SIMPLE[hint]) and (hint is bool or not isinstance(value, bool))
    if hint in (type(None), None):
        return value is None
    if _is(hint, enum.Enum):
        return _member(value, hint) is not None
    if _is(hint, PurePath):
        return isinstance(value, str | PurePath)
    if dataclasses.is_dataclass(hint):
        fields, hints = _fields(value), get_type_hints(hint)
        if fields is None:
            return False
        return all(name in hints and _fits(x, hints[name]) for name, x in fields.items())
    if origin in LISTS:
        if not isinstance(value, tuple | list):
            return False
        if origin is tuple and parts and parts[-1] is not ...:
            return len(value) == len(parts) and all(map(_fits, value, parts))
        return not parts or all(_fits(x, parts[0]) for x in value)
    if origin in DICTS:
        return isinstance(value, dict) and (not parts or all(_fits(x, parts[1]) for x in value.values()))
    return not _is_union(hint) or any(_fits(value, h) for h in parts)


def restored(value: Any, hint: Any) -> Any:
    """A value from JSON, or as somebody wrote it, in the knob's declared type."""
    hint = _bare(hint)
    origin, parts = get_origin(hint) or hint, get_args(hint)
    if hint is float and isinstance(value, int):
        return float(value)
    if _is(hint, enum.Enum):
        return _member(value, hint)
    if _is(hint, PurePath):
        return hint(value)
    if dataclasses.is_dataclass(hint) and (fields := _fields(value)) is not None:
        hints = get_type_hints(hint)
        return hint(**{name: restored(x, hints[name]) for name, x in fields.items()})  # type: ignore[operator]
    if origin in LISTS and isinstance(value, tuple | list):
        fixed_length = origin is tuple and parts and parts[-1] is not ...
        element_hints = parts if fixed_length else [parts[0] if parts else Any] * len(value)
        elements = [restored(x, h) for x, h in zip(value, element_hints, strict=True)]
        return elements if origin is list else tuple(elements)
    if origin in DICTS and isinstance(value, dict):
        return {name: restored(x, parts[1] if parts else Any) for name, x in value.items()}
    if _is_union(hint):
        fitting = [h for h in parts if _fits(value, h)]
        exact = [h for h in fitting if not (_bare(h) is float and isinstance(value, int))]
        return restored(value, (exact or fitting or [Any])[0])
    return value


def plain(value: Any) -> Any:
    """A value as JSON has it, except that tuples stay tuples."""
    if isinstance(value, enum.Enum):
        return value.value if isinstance(value, enum.Flag) else value.name
    if isinstance(value, PurePath):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: plain(x) for name, x in value.items()}
    return type(value)(map(plain, value)) if type(value) in (tuple, list) else value


def words(
    changed: Mapping[str, Any], default: Mapping[str, Any], config: type, prefix: str = ""
) -> list[str]:
    """Plain knobs that are not at their defaults, as the command line takes them."""
    found: list[str] = []
    for name, value in changed.items():
        if value == default.get(name):
            continue
        hint, option = _bare(get_type_hints(config)[name]), f"{prefix}{name.replace('_', '-')}"
        if dataclasses.is_dataclass(hint) and isinstance(value, dict):
            found += words(value, default.get(name) or {}, hint, f"{option}.")  # type: ignore[arg-type]
        elif isinstance(value, bool) and hint is bool:
            found.append(f"--{option}" if value else f"--{prefix}no-{name.replace('_', '-')}")
        else:
            pairs = [x for pair in value.items() for x in pair] if isinstance(value, dict) else None
            found += [
                f"--{option}",
                *map(str, pairs or (value if isinstance(value, tuple | list) else [value])),
            ]
    return found


def apart(argv: Sequence[str], config: type) -> list[str]:
    """The command line, with --sizes 16,16 as --sizes 16 16 for knobs that are lists of other values
    than texts.
    """
    hints = {f"--{name.replace('_', '-')}": _bare(hint) for name, hint in get_type_hints(config).items()}
    found: list[str] = []
    for i, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if equals and _is_split(hints.get(name.replace("_", "-")), value):
            found += [name, *value.split(",")]
            continue
        before = argv[i - 1].replace("_", "-") if i else ""
        alone = i + 1 == len(argv) or argv[i + 1].startswith("--")
        found += word.split(",") if alone and _is_split(hints.get(before), word) else [word]
    return found


def _is_split(hint: Any, word: str) -> bool:
    parts = [_bare(h) for h in get_args(hint) if h is not ...]
    texts = any(h is str or _is(h, PurePath) for h in parts)
    return (get_origin(hint) or hint) in LISTS and bool(parts) and not texts and "," in word


def elements(hint: Any) -> tuple[Any, ...]:
    """The types of a tuple's or list's elements, the last of which repeats; () for another type."""
    hint = _bare(hint)
    return tuple(h for h in get_args(hint) if h is not ...) if (get_origin(hint) or hint) in LISTS else ()


def _member(value: Any, hint: Any) -> Any:
    """The Enum's member that a name means, or a member of the same Enum of another loading; else None."""
    if isinstance(value, hint):
        return value
    if isinstance(value, enum.Enum) and type(value).__name__ == hint.__name__:
        value = value.value if isinstance(value, enum.Flag) else value.name
    if issubclass(hint, enum.Flag) and isinstance(value, int) and not isinstance(value, bool):
        return hint(value)
    return hint.__members__.get(value) if isinstance(value, str) else None


def _fields(value: Any) -> dict[str, Any] | None:
    """What a dataclass, or a dict that stands for one, holds by name; else None."""
    if isinstance(value, dict):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return None


def _bare(hint: Any) -> Any:
    """A type without Annotated around it, or NewType."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return _bare(hint.__supertype__) if hasattr(hint, "__supertype__") else hint


def _is(hint: Any, *kinds: type) -> bool:
    return isinstance(hint, type) and issubclass(hint, kinds)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def type_name(hint: Any) -> str:
    """A type as a message names it."""
    return str(hint) if get_args(hint) else getattr(hint, "__name__", str(hint))
