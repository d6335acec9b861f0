"""The tutorial, chapter by chapter: files are written, commands and Python are run, output is as shown.

Of the fenced blocks, ```python title="x.py" is a file, ```python and ```sh are run, and ```text is what the
block before it says, among other things: its lines come in this order, "…" is anything, and numbers are equal
to within a twentieth.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from jaxmodels import cli
from jaxmodels.parallel import mesh

ROOT = Path(__file__).parents[2]
CHAPTERS = re.split(r"^## ", (ROOT / "docs" / "tutorial.md").read_text(), flags=re.MULTILINE)[1:]
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """(folder, names that the reader's Python session knows)"""
    return tmp_path_factory.mktemp("tutorial"), {}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.partition("\n")[0])
def test_a_chapter_does_what_it_says(chapter, reader, monkeypatch, capfd):
    folder, session = reader
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the processes that launch and plan start
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.setattr(mesh, "default_sizes", lambda devices: {"data": 1})  # the reader's computer
    said = ""
    for kind, title, text in BLOCK.findall(chapter):
        if kind == "text":
            assert_says(said, text)
        elif title:
            Path(title).write_text(text)
        else:
            for line in [text] if kind == "python" else text.splitlines():
                exec(line, session) if kind == "python" else command(line)
            said = "".join(capfd.readouterr())


def command(line: str) -> None:
    """Runs it here, which is quicker than a process; there are devices enough already."""
    words = shlex.split(line.removeprefix("JAX_NUM_CPU_DEVICES=4 "))
    assert words[0] == "jaxmodels"
    assert cli.main(words[1:]) == 0


def assert_says(said: str, shown: str) -> None:
    """Each line of what is shown occurs, one after another."""
    lines = iter(said.splitlines())
    for want in shown.splitlines():
        assert any(alike(line.split(), want.split()) for line in lines), (
            f"{want!r} comes nowhere, or too late, in\n{said}"
        )


def alike(words: list[str], wanted: list[str]) -> bool:
    if not wanted or not words:
        return words == wanted or wanted == ["…"]
    if wanted[0] == "…":
        return alike(words, wanted[1:]) or alike(words[1:], wanted)
    return same(words[0], wanted[0]) and alike(words[1:], wanted[1:])


def same(word: str, wanted: str) -> bool:
    try:
        a, b = (float(w.replace(",", "")) for w in (word, wanted))
    except ValueError:
        return word == wanted
    return a == pytest.approx(b, rel=0.05)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("said", "shown", "right"),
    [
        ("a  1.02\nnoise\nb 2,000 s", "a 1.0\nb 2,010 …", True),
        ("a 1.2", "a 1.0", False),
        ("b\na", "a\nb", False),
        ("a b", "a", False),
        ("a", "a …", True),
        ("a x b", "… b", True),
    ],
)
def test_output_is_compared_by_lines_words_and_rounded_numbers(said, shown, right):
    if right:
        assert_says(said, shown)
    else:
        with pytest.raises(AssertionError):
            assert_says(said, shown)
