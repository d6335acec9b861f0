"""The table of commands: each stands there once; each option is documented once and has one default."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
from pathlib import Path
from typing import Any, get_args

import pytest

from jaxmodels import cli
from jaxmodels.cli.command import Command
from jaxmodels.cli.parsing import groups_of
from jaxmodels.launch import cluster
from jaxmodels.options import DistributedOptions

pytestmark = pytest.mark.fast

MODULES = [importlib.import_module(f"jaxmodels.cli.{name}") for name in sorted({*cli.COMMANDS.values()})]
COMMANDS = {x.name: x for module in MODULES for x in vars(module).values() if isinstance(x, Command)}
GROUPS = sorted(
    {group for command in COMMANDS.values() for part in command.parts for group in groups_of(part)},
    key=lambda group: group.__name__,
)


def python_functions() -> dict[str, Any]:
    """The Python function of each command that has a module of its own."""
    functions = {}
    for name in COMMANDS:
        path = Path(cli.__file__).parents[1] / "commands" / f"{name.replace('-', '_')}.py"
        if path.is_file():
            module = importlib.import_module(f"jaxmodels.commands.{path.stem}")
            functions[name] = getattr(module, "list_experiments" if name == "list" else path.stem)
    return functions


def test_the_table_has_every_command_once():
    assert COMMANDS.keys() == cli.COMMANDS.keys()
    assert {*COMMANDS} == {*python_functions(), "convert"}  # whose function is jaxmodels.convert.save.convert
    for name, module in cli.COMMANDS.items():
        assert isinstance(cli.command_named(name), Command)
        assert any(
            x is COMMANDS[name] for x in vars(importlib.import_module(f"jaxmodels.cli.{module}")).values()
        )


def test_every_module_of_the_commands_is_a_command():
    files = (Path(cli.__file__).parents[1] / "commands").glob("[a-z]*.py")
    assert {file.stem.replace("_", "-") for file in files} == {*python_functions()}


def test_the_help_has_a_line_for_every_command_and_its_summary():
    lines = cli.help_text().splitlines()
    for name, command in COMMANDS.items():
        usages = {command.usage: command.summary, **command.also}
        for arguments, summary in usages.items():
            assert sum(line.split() == [*f"{name} {arguments} {summary}".split()] for line in lines) == 1
        assert sum(line.split()[:1] == [name] and line.startswith("  ") for line in lines) == len(usages)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_two_options_of_a_command_have_the_same_name(command):
    names = [field.name for part in command.parts for field in dataclasses.fields(part)]
    assert len(names) == len({*names})


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_every_option_is_followed_by_its_documentation(group):
    body = ast.parse(inspect.getsource(group)).body[0].body  # type: ignore[attr-defined]
    assert isinstance(body[0].value, ast.Constant)
    for field, text in zip(body[1::2], body[2::2], strict=True):
        assert isinstance(field, ast.AnnAssign) and field.value is not None
        assert (
            isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and text.value.value.endswith(".")
        )


@pytest.mark.parametrize("name", python_functions())
def test_the_python_function_takes_its_defaults_from_the_options(name):
    """The default of every keyword that is an option is written as XOptions.keyword."""
    function = python_functions()[name]
    options = {field.name for part in COMMANDS[name].parts for field in dataclasses.fields(part)}
    arguments = ast.parse(inspect.getsource(function)).body[0].args  # type: ignore[attr-defined]
    found = 0
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if argument.arg in options - {"prompt"} and default is not None:
            text = ast.unparse(default).removesuffix(" == 'on'")
            owner, _, field = text.partition(".")
            assert owner.endswith("Options") and field == argument.arg, f"{argument.arg} = {text}"
            found += 1
    assert found or name in ("train", "generate", "plan", "transcribe")


def test_defaults_that_must_be_written_twice_are_the_same():
    """launch imports no options, and a module of options no tokenizer."""
    from jaxmodels.commands.tokenize import Kind
    from jaxmodels.data.formats import tokenizer_training

    assert DistributedOptions.lost_after == cluster.LOST_AFTER
    assert get_args(Kind) == get_args(tokenizer_training.Kind)


def test_a_public_name_is_not_hidden_by_a_folder_of_that_name():
    import jaxmodels

    assert cluster.__name__ == "jaxmodels.launch.cluster"  # imported above
    for name in jaxmodels.__all__:
        assert not inspect.ismodule(getattr(jaxmodels, name))
