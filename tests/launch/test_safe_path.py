"""No command, and nothing that a command starts, imports a module from the working folder."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from files import tiny_mlp

from jaxmodels.data.workers import Workers
from jaxmodels.launch.safe_path import VARIABLE, python, starting

ROOT = Path(__file__).parents[2]
PLANTED = ("optax", "json", "platform", "socket", "pickle", "wandb", "msgpack", "submitit_planted")


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A working folder with modules in it that leave a file each, and none of them left at the end."""
    for name in PLANTED:
        (tmp_path / f"{name}.py").write_text(
            f"open({str(tmp_path / 'RAN')!r} + '-{name}', 'w')\nraise ImportError('planted')\n"
        )
    shutil.copy(tiny_mlp.__file__, tmp_path / "experiment_of_mine.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    yield tmp_path
    assert not list(tmp_path.glob("RAN-*"))


def command(*words):
    done = subprocess.run([*words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


MINE = "experiment_of_mine.py"
COMMANDS = {
    "train": ("train", MINE, "--folder", "r", "--steps-per-dispatch", "2", "--mesh", "data=1"),
    "launch": ("launch", MINE, "--processes", "2", "--folder", "r"),
    "verify-resume": ("verify-resume", MINE, "--through", "6", "--every", "3", "--kills", "1"),
    "plan": ("plan", MINE, "--on", "cpu:1", "--compile", "off"),
    "sweep": ("sweep", MINE, "--lr", "0.1,0.2", "--on", "local", "--workers", "1", "--folder", "s"),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.thorough] * (name in ("train", "verify-resume")))
        for name in COMMANDS
    ],
)
def test_no_command_imports_from_the_working_folder(planted, name):
    if name == "sweep" and find_spec("submitit") is None:
        pytest.skip("needs submitit: pip install 'jaxmodels[slurm]'")
    command(sys.executable, "-m", "jaxmodels", *COMMANDS[name])


def rows(worker, count):
    yield [np.full(2, worker)]


def test_worker_processes_of_the_data_do_not_import_from_it(planted):
    workers, got = Workers(rows, 1), np.zeros((1, 2), int)
    workers.read(0, [got[0]])
    workers.close()
    assert not list(planted.glob("RAN-*"))


@pytest.mark.fast
def test_what_a_library_starts_is_told(planted):
    with starting():
        assert (
            json.loads(command(sys.executable, "-c", "import json, sys; print(json.dumps(sys.path))"))[0]
            != ""
        )
    assert VARIABLE not in os.environ
    assert "usage" in command(*python("json.tool"), "--help")


def test_every_python_that_is_started_is_started_so():
    for file in sorted((ROOT / "jaxmodels").rglob("*.py")):
        names = {
            ast.unparse(node)
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Attribute)
        }
        if "sys.executable" in names:
            assert file.name in ("safe_path.py", "hugepages.py"), file  # the latter is the same command again
