"""The page on using a trained model: the chapter on predictions does what it says."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from jaxmodels import cli
from jaxmodels.parallel import mesh

pytest.importorskip("sklearn", reason="needs scikit-learn")

ROOT = Path(__file__).parents[2]
CHAPTER = re.split(r"^## ", (ROOT / "docs" / "use.md").read_text(), flags=re.MULTILINE)[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_chapter_on_predictions_does_what_it_says(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(mesh, "default_sizes", lambda devices: {"data": 1})  # the reader's computer
    os.symlink(ROOT / "experiments", "experiments")
    session: dict = {}
    said = ""
    kinds = []
    for kind, text in BLOCK.findall(CHAPTER):
        kinds.append(kind)
        if kind == "text":
            lines = [" ".join(line.split()) for line in text.splitlines()]
            assert [line for line in lines if line not in " ".join(said.split())] == []
        elif kind == "python":
            exec(text, session)
            said = "".join(capfd.readouterr())
        else:
            statuses = [cli.main(shlex.split(line)[1:]) for line in text.splitlines()]
            said = "".join(capfd.readouterr())
            assert statuses == ["2 of them with an error" in said]
    assert kinds.count("sh") == 2 and kinds.count("python") == 3
    written = (tmp_path / "priced.csv").read_text().splitlines()
    assert written[0] == "town,size,price,error" and len(written) == 5
    assert abs(session["answer"].error.count("Mars")) == 1
