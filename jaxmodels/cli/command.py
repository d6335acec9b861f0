"""What a command is, and what all of them do: parse, join other processes, print JSON, end with a status."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxmodels.cli.parsing import fail, leading, parse, swept_knobs
from jaxmodels.console import Console
from jaxmodels.launch.exit_statuses import BAD_INPUT, DONE
from jaxmodels.options import DistributedOptions, Options, OutputOptions

Json = Any  # a value of JSON's types


class Ended(NamedTuple):
    """The end of a command with an exit status of its own; json is None where nothing is printed."""

    json: Json
    status: int


class CommandLine(NamedTuple):
    """The arguments of one call that are not a command's own options."""

    operands: list[str]  # before the options, such as a run and files
    words: list[str]  # the rest, as it was typed
    knobs: dict[str, Any]  # of the experiment's file
    file: Any = None  # the experiment's file, where the command reads one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """A row of the table of commands."""

    name: str
    operands: str
    """What comes before the options: RUN, FILES… for one or more, [FOLDER…] for any number.
    A FILE that comes first is an experiment's file, whose knobs are options too."""
    options: tuple[type, ...]
    function: Callable[[CommandLine, Console, dict[str, Any]], Json | Ended]
    usage: str
    """The arguments that `jaxmodels --help` shows."""
    also: dict[str, str]
    """Other arguments, with what they do."""
    file_options: tuple[type, ...]
    """The options where RUN is an experiment's file; empty where it cannot be one."""
    note: str
    """What the help page says besides the function's docstring."""
    swept: bool
    """Whether knobs take several values, as typed; then FILE may be a folder too."""
    passes_on: bool
    """Whether the words after -- are another command's."""
    output: bool
    """Whether there are --json and --quiet."""
    reads: bool
    """Whether the command only reads: then an absent file is the user's mistake."""
    prepare: Callable[[list[str]], list[str]]
    """Changes the words before they are parsed."""

    @property
    def summary(self) -> str:
        """The docstring's first line, as a phrase."""
        first = (self.function.__doc__ or "").strip().splitlines()[0].rstrip(".")
        return first[0].lower() + first[1:]

    @property
    def about(self) -> str:
        """What the help page says of the command."""
        return " ".join([" ".join((self.function.__doc__ or "").split()), self.note]).strip()

    @property
    def parts(self) -> tuple[type, ...]:
        """The dataclasses of all options."""
        return (*self.options, *([OutputOptions] if self.output else []))

    def run(self, argv: Sequence[str]) -> int:
        """Runs the command on the words after its name, and gives the exit status."""
        operands, words = self._split(self.prepare(list(argv)))
        first_process = True
        if DistributedOptions in self.options and not _asks_for_help(words):
            first_process = self._join(words)  # before the file is executed, which may use a device
        line, parsed = self._parse(operands, words)
        output = parsed.pop(OutputOptions, OutputOptions())
        parsed.pop(DistributedOptions, None)
        options = {name: value for part in parsed.values() for name, value in vars(part).items()}
        console = Console(quiet=output.quiet, json=output.json, muted=not first_process)
        ended = self.function(line, console, options)
        if not isinstance(ended, Ended):
            ended = Ended(ended, DONE)
        if output.json and ended.json is not None and first_process:
            from jaxmodels.runs.metrics_file import finite

            print(json.dumps(finite(ended.json), default=str))
        return ended.status

    def _split(self, argv: list[str]) -> tuple[list[str], list[str]]:
        """The operands and the rest; prints help, or a mistake, and exits where an operand is absent."""
        operands: list[str] = []
        for i, operand in enumerate(self.operands.split()):
            before, after = leading(argv)
            many = operand.rstrip("]").endswith("…")
            if not before and not operand.startswith("["):
                if _asks_for_help(argv):
                    parse(self._prog(self.operands.split()), ["--help"], self.parts, about=self.about)
                command = " ".join(["jaxmodels", self.name, *self.operands.split()[:i]])
                needed = operand.rstrip("…")
                raise SystemExit(fail(f"{command} needs {needed} first; see {command} --help", BAD_INPUT))
            operands += before if many else before[:1]
            argv = after if many else argv[1:]
        return operands, argv

    def _prog(self, operands: Sequence[str]) -> str:
        return " ".join(["jaxmodels", self.name, *operands])

    def _join(self, words: list[str]) -> bool:
        """Joins the processes that this one trains with; whether this is the first of them."""
        from jaxmodels.launch import cluster
        from jaxmodels.parallel import processes

        processes.join(cluster.find(words, os.environ), preemption=Options in self.options)
        return processes.first()

    def _parse(self, operands: list[str], words: list[str]) -> tuple[CommandLine, dict[type, Any]]:
        """The command line, and an object of each dataclass of options."""
        prog = self._prog(operands)
        takes_file = self.operands.split()[:1] == ["FILE"] and not (self.swept and Path(operands[0]).is_dir())
        if not takes_file and not (self.file_options and operands[0].endswith(".py")):
            own = words[: words.index("--")] if self.passes_on and "--" in words else words
            parsed, _ = parse(prog, own, self.parts, about=self.about)
            return CommandLine(operands, words, {}), parsed
        from jaxmodels.runs import experiment_file
        from jaxmodels.runs.knob_types import apart

        file = experiment_file.load(operands[0])
        config_fields = [field.name for field in dataclasses.fields(file.config)]
        if self.swept:
            knobs, rest = swept_knobs(words, config_fields)
            parsed, _ = parse(prog, rest, self.parts, about=self.about)
            return CommandLine(operands, words, knobs, file), parsed
        parts = self.parts if takes_file else (*self.file_options, OutputOptions)
        names = {field.name for part in parts for field in dataclasses.fields(part)}
        if clashes := [name for name in config_fields if name in names]:
            raise ValueError(
                f"{operands[0]}: got a knob {clashes[0]}, which is the name of an option of jaxmodels "
                f"{self.name}; expected another name. Rename the knob"
            )
        about = (file.module.__doc__ or "").strip()
        parsed, config = parse(prog, apart(words, file.config), parts, about=about, knobs=file.config)
        knobs = {name: getattr(config, name) for name in config_fields}
        return CommandLine(operands, words, knobs, file), parsed


def command(
    name: str,
    operands: str,
    *options: type,
    usage: str | None = None,
    also: dict[str, str] | None = None,
    file_options: tuple[type, ...] = (),
    note: str = "",
    swept: bool = False,
    passes_on: bool = False,
    output: bool = True,
    reads: bool = False,
    prepare: Callable[[list[str]], list[str]] = list,
) -> Callable[[Callable[[CommandLine, Console, dict[str, Any]], Json | Ended]], Command]:
    """Makes a command of a function. Its docstring is the help; `jaxmodels --help` shows the first line.

    The function gets the command line, a console and the values of the options by name, and gives what --json
    prints. See Command for the arguments.
    """

    def decorate(function: Callable[[CommandLine, Console, dict[str, Any]], Json | Ended]) -> Command:
        return Command(
            name=name,
            operands=operands,
            options=options,
            function=function,
            usage=operands if usage is None else usage,
            also=also or {},
            file_options=file_options,
            note=note,
            swept=swept,
            passes_on=passes_on,
            output=output,
            reads=reads,
            prepare=prepare,
        )

    return decorate


def in_company() -> bool:
    """Whether this process trains with others; it joined them by a module that is imported then."""
    processes = sys.modules.get("jaxmodels.parallel.processes")
    return processes is not None and processes.count() > 1


def _asks_for_help(words: Sequence[str]) -> bool:
    return bool({"-h", "--help"} & {*words})
