"""The words of a command line as objects; tyro prints help and mistakes."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated, Any

from jaxmodels.console import shown
from jaxmodels.launch.exit_statuses import BAD_INPUT


def fail(text: str, status: int) -> int:
    """Says what went wrong, and gives the status."""
    with contextlib.suppress(OSError, ValueError):  # a message that cannot be printed changes no status
        print(f"error: {shown(text)}", file=sys.stderr, flush=True)
    return status


def parse(
    command: str, argv: list[str], first: str, parts: dict[str, type], *, about: str = ""
) -> dict[str, Any]:
    """The command line as one object for each of `parts`; tyro prints help and mistakes, and exits."""
    import dataclasses

    import tyro

    named = tyro.conf.arg(
        name=""
    )  # options without their part's name before them, and those of a knob with the knob's
    fields = [
        (n, Annotated[kind, named], dataclasses.field(default_factory=kind)) for n, kind in parts.items()
    ]
    whole = dataclasses.make_dataclass("Arguments", fields, kw_only=True)
    whole.__doc__ = about
    got: Any = tyro.cli(
        whole,
        prog=f"jaxmodels {command} {first}",
        args=argv,
        description=about,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return {name: getattr(got, name) for name in parts}


def positional(
    command: str, argv: list[str], what: str, parts: dict[str, type], about: str
) -> tuple[str, list[str]]:
    """The positional argument, and the rest; help, or a mistake, where it is absent."""
    if argv and not argv[0].startswith("-"):
        return argv[0], argv[1:]
    if argv and argv[0] in ("-h", "--help"):
        parse(command, ["--help"], what, parts, about=about)
    raise SystemExit(
        fail(f"jaxmodels {command} needs {what} first; see jaxmodels {command} --help", BAD_INPUT)
    )


def leading(words: list[str]) -> tuple[list[str], list[str]]:
    """The words before the first option, and the rest."""
    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:count], words[count:]


def given(words: list[str], part: type) -> set[str]:
    """Names of the options of a part that are on the command line, with their default or not."""
    import dataclasses

    typed = {
        word.partition("=")[0].removeprefix("--").replace("-", "_") for word in words if word.startswith("--")
    }
    return {field.name for field in dataclasses.fields(part)} & typed


def knobs_of(
    command: str, path: str, rest: list[str], parts: dict[str, type]
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """(file, parsed parts, knobs) of an experiment's file and the options after it."""
    import dataclasses

    from jaxmodels.runs import experiment_file
    from jaxmodels.runs.knob_types import apart

    file = experiment_file.load(path)
    names = {f.name for kind in parts.values() for f in dataclasses.fields(kind)}
    clash = [f.name for f in dataclasses.fields(file.config) if f.name in names]
    if clash:
        raise ValueError(
            f"{path}: knob {clash[0]} has the name of an option of jaxmodels {command}; rename the knob"
        )
    about = (file.module.__doc__ or "").strip()
    rest = apart(rest, file.config)
    got: dict[str, Any] = parse(command, rest, path, {"knobs": file.config, **parts}, about=about)
    config = got.pop("knobs")
    return file, got, {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}


def without(words: list[str], options: list[str]) -> list[str]:
    """The command line without these options and their values."""
    kept, skip = [], False
    for word in words:
        if not skip and word.partition("=")[0] not in options:
            kept.append(word)
        skip = not skip and word in options
    return kept
