"""The words of a command line as options; tyro prints help pages and mistakes."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from jaxmodels.console import shown


def fail(text: str, status: int) -> int:
    """Prints what went wrong, and gives the status."""
    with contextlib.suppress(OSError, ValueError):  # a message that cannot be printed changes no status
        print(f"error: {shown(text)}", file=sys.stderr, flush=True)
    return status


def parse(
    prog: str, words: Sequence[str], kinds: Sequence[type], *, about: str = "", knobs: type | None = None
) -> tuple[dict[type, Any], Any]:
    """(an object of each of these dataclasses, the knobs); tyro prints help and mistakes, and exits.

    The help page shows the knobs, then each dataclass, or each of those that it consists of, as a group.
    """
    import tyro

    from jaxmodels.options import RARE

    def field(name: str, kind: type, *conf: Any) -> tuple[str, Any, Any]:
        argument = tyro.conf.arg(name=label(kind) if conf else "")
        return name, Annotated[(kind, argument, *conf)], dataclasses.field(default_factory=kind)

    groups = [group for kind in kinds for group in groups_of(kind)]
    groups.sort(key=lambda group: group in RARE)  # stable
    fields = [field(group.__name__, group, tyro.conf.OmitArgPrefixes) for group in groups]
    if knobs is not None:
        fields.insert(0, field("knobs", knobs))
    arguments = dataclasses.make_dataclass("Arguments", fields, kw_only=True)
    arguments.__doc__ = about
    parsed: Any = tyro.cli(
        arguments, prog=prog, args=words, description=about, config=(tyro.conf.FlagCreatePairsOff,)
    )
    values = {kind: [vars(getattr(parsed, group.__name__)) for group in groups_of(kind)] for kind in kinds}
    objects = {
        kind: kind(**{k: v for part in parts for k, v in part.items()}) for kind, parts in values.items()
    }
    return objects, getattr(parsed, "knobs", None)


def groups_of(kind: type) -> list[type]:
    """The dataclasses that a dataclass inherits its fields from, in their order; itself if there are none."""
    return [base for base in reversed(kind.__bases__) if dataclasses.is_dataclass(base)] or [kind]


def label(kind: type) -> str:
    """The title of a group: find-rate for FindRateOptions."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__.removesuffix("Options")).lower()


def given(words: Sequence[str], kind: type) -> set[str]:
    """Names of the options of a dataclass that are on the command line, with their default or not."""
    typed = {
        word.partition("=")[0].removeprefix("--").replace("-", "_") for word in words if word.startswith("--")
    }
    return {field.name for field in dataclasses.fields(kind)} & typed


def take(options: dict[str, Any], kind: type) -> dict[str, Any]:
    """Removes the options of a dataclass from these, and gives them."""
    return {field.name: options.pop(field.name) for field in dataclasses.fields(kind)}


def flags(kind: type) -> list[str]:
    """The options of a dataclass as the command line spells them."""
    names = [field.name for field in dataclasses.fields(kind)]
    return [f"--{spelt}" for name in names for spelt in (name, name.replace("_", "-"))]


def leading(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before the first option, and the rest."""
    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    return list(words[:count]), list(words[count:])


def without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """The command line without these options and their values."""
    kept, skip = [], False
    for word in words:
        if not skip and word.partition("=")[0] not in options:
            kept.append(word)
        skip = not skip and word in options
    return kept


def swept_knobs(words: Sequence[str], names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """(values of knobs as they were typed, the other words)."""
    knobs: dict[str, Any] = {}
    rest = []
    words = list(words)
    while words:
        word = words.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if word.startswith("--") and name.partition(".")[0] in names and "." in name:
            raise ValueError(
                f"{word}: got a field of the knob {name.partition('.')[0]}, a dataclass; expected a plain "
                "knob, as a sweep has no others on its command line. Give Config a knob of its own for it"
            )
        if not word.startswith("--") or name not in names:
            rest.append(word)
        elif not equals and not words:
            raise ValueError(f"{word}: got no value; expected one or several. Give them, as in {word} 1,2,3")
        else:
            knobs[name] = value if equals else words.pop(0)
    return knobs, rest
