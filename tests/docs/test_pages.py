"""What README and docs name exists: commands and their options, files, modules, links."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from jaxmodels import cli

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))
TABLES = {
    "results.md": "train",
    "planning.md": "plan",
}  # pages with tables of experiments, and the command that they name
# by runs.md, speech.md, recommendation.md and series.md
WRITTEN_BY_PAGES = {
    "prices.py",
    "flats.py",
    "own_words.py",
    "own_sentences.py",
    "own_recordings.py",
    "own.py",
    "own_series.py",
}
EXAMPLE = "experiments/digits_mlp.py"  # in place of FILE
STARTS = ("jaxmodels ", "python benchmarks/", "python docs/", "python experiments/", "python tests/")


def pages(test):
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)(test)


def code(page: Path) -> list[str]:
    """Lines of code and spans of code, without those of Python, of output and of scripts for clusters."""
    text = re.sub(r"^```(?!sh).*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^    (\S.*)", text, re.MULTILINE)
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        lines += block.splitlines()
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*lines, *(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose))]


def commands(page: Path) -> list[list[str]]:
    """The words of each command that a page names; what is said of it beside the line is cut off."""
    found = []
    for line in code(page):
        line = re.split(r"\s{3,}|  #", re.sub(r"^([A-Z_]+=\S+ )+", "", line.rpartition("&& ")[2]))[0]
        if line.startswith(STARTS):
            found.append(shlex.split(line))
    table = TABLES.get(page.name)
    for line in re.findall(r"^\| `(\w+\.py[^`]*)`", page.read_text(), re.MULTILINE) if table else ():
        found.append(["jaxmodels", table, *shlex.split(f"experiments/{line}")])
    return found


@cache
def options(command: str, file: str) -> frozenset[str]:
    """The long options of a command's help."""
    words = {"template": ["slurm"]}.get(command, [])
    takes_file = command in (
        "train",
        "sweep",
        "plan",
        "launch",
        "template",
        "verify-resume",
        "find-rate",
        "find-batch",
    )
    return frozenset(
        re.findall(r"--[a-z][\w.-]*", help_of([command, *words, *([file] if takes_file else []), "--help"]))
    )


def help_of(words: list[str]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        cli.main(words)
    return said.getvalue()


@cache
def known_commands() -> frozenset[str]:
    return frozenset(re.findall(r"^  ([a-z][\w-]*) ", help_of(["--help"]), re.MULTILINE))


@pytest.mark.slow
@pages
def test_commands_and_their_options_exist(page, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(ROOT)
    for words in commands(page):
        if words[0] == "python":
            assert (ROOT / words[1]).is_file(), words
            continue
        assert words[1] in known_commands() | {"COMMAND", "--help", "--version"}, words
        files = [word for word in words[2:] if word.endswith(".py")]
        absent = [file for file in files if not (ROOT / file).exists()]
        assert page.name == "tutorial.md" or {*absent} <= WRITTEN_BY_PAGES, words
        if words[1] not in known_commands() or absent:
            continue  # of the tutorial's own files, which test_tutorial.py runs
        file = next((file for file in files if (ROOT / file).exists()), EXAMPLE)
        given = [word.partition("=")[0] for word in words[2:] if word.startswith("--") and word != "--"]
        unknown = [name for name in given if name not in options(words[1], file) | {"--help"}]
        if "--" in words:  # what stands after it is for train
            unknown = [name for name in unknown if name not in options("train", file)]
        knobs = {"--lr", "--seed"}  # that FILE may have
        assert not unknown or ("FILE" in words and set(unknown) <= knobs), (words, unknown)


@pages
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http") and not target.startswith("api/"):
            assert (page.parent / target).exists(), target


@pages
def test_paths_in_the_repository_exist(page):
    for path in re.findall(
        r"`((?:jaxmodels|experiments|benchmarks|tests|docs|\.ci)/[\w./]+)`", page.read_text()
    ):
        assert (ROOT / path).exists(), path


def dotted(text: str) -> set[str]:
    return set(re.findall(r"\bjaxmodels(?:\.[A-Za-z_]\w*)+", text))


@pytest.mark.parametrize("file", [*PAGES, *EXPERIMENTS], ids=lambda file: file.name)
def test_dotted_names_are_modules_or_what_these_hold(file):
    text = file.read_text()
    if file.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    for name in dotted(text):
        if not name.endswith((".py", ".git")):
            assert resolved(name), name


def resolved(name: str) -> bool:
    """Whether the longest module in the name has the rest as attributes."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_the_readme_shows_the_experiment_that_it_names_and_stays_short():
    text = README.read_text()
    assert len(text.splitlines()) <= 130
    shown = re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1]
    file = (ROOT / "experiments" / "digits_cnn.py").read_text()
    lines = [line.split("  #")[0].rstrip() for line in shown.splitlines() if "CNN(" not in line]
    assert [
        line for line in lines if line not in {x.split("  #")[0].rstrip() for x in file.splitlines()}
    ] == []


def test_every_page_is_in_the_navigation():
    named = (ROOT / "mkdocs.yml").read_text()
    assert not [page.name for page in PAGES[1:] if f"- {page.name}" not in named]


@pytest.mark.slow
def test_a_loop_of_ones_own_does_what_its_page_says(capsys):
    text = (ROOT / "docs" / "own_loop.md").read_text()
    exec(re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1], {})
    shown = re.search(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1]
    assert re.fullmatch(re.escape(shown).replace("…", r"\d*"), capsys.readouterr().out)


def test_python_on_other_pages_is_run_by_other_tests():
    """use.md by test_serving.py and test_export.py, others by tests so named; README above."""
    with_python = {page.name for page in PAGES if "```python" in page.read_text()}
    others = {"use.md", "speech.md", "recommendation.md", "series.md", "tables.md"}
    assert with_python <= {"README.md", "tutorial.md", "runs.md", "own_loop.md", *others}
