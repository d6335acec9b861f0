"""The page on tables does what it says, from a stranger's file to answers."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from jaxmodels import cli
from jaxmodels.parallel import mesh

pytest.importorskip("sklearn", reason="needs scikit-learn")

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_does_what_it_says(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(mesh, "default_sizes", lambda devices: {"data": 1})  # the reader's computer
    os.symlink(ROOT / "experiments", "experiments")
    session: dict = {}
    said = ""
    kinds = []
    for kind, text in BLOCK.findall((ROOT / "docs" / "tables.md").read_text()):
        kinds.append(kind)
        if kind == "text":
            lines = [" ".join(line.split()) for line in text.splitlines()]
            assert [line for line in lines if line not in " ".join(said.split())] == []
        elif kind == "python":
            exec(text, session)
        else:
            status = cli.main(shlex.split(text)[1:])
            said = "".join(capfd.readouterr())
            assert status == ("1 of them with an error" in said)
    assert kinds.count("sh") == 2 and kinds.count("python") == 3
    assert len((tmp_path / "priced.csv").read_text().splitlines()) == 4
    assert session["answers_N1"].shape == (5, 1) and np.isfinite(session["answers_N1"]).all()
