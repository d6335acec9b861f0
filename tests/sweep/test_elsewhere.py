"""Jobs of a sweep: real processes by submitit, a Slurm of three scripts, and a real Ray cluster of this computer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxmodels import cli, parallel
from jaxmodels.sweep import elsewhere, part, programs
from jaxmodels.sweep.command import sweep
from jaxmodels.sweep.training import new_folder

ROOT = Path(__file__).parents[2]
fast = pytest.mark.fast

# Read in the job alone: members of a program and steps of a dispatch as here, and a real kill -9, once, after step 4.
IN_A_JOB = """
import os, signal, sys, time
from pathlib import Path

if sys.argv[0].endswith("part.py"):
    from jaxmodels.sweep import programs

    programs.GroupPrograms.choose = lambda self, configs, batches, events: (len(configs), 2)
    own = ArrayPipeline.rows

    def rows(self, step, start, stop):
        marker = Path(os.environ.get("KILLED", os.devnull))
        if step == 7 and not marker.exists():
            here = Path(__file__).parent
            while not list(here.glob("together/*/checkpoints/4/*")):
                time.sleep(0.01)
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return own(self, step, start, stop)

    ArrayPipeline.rows = rows
    if "REFUSED" in os.environ:
        before = build

        def build(config):
            if config.width == 4:
                raise ValueError("no such width\\nof ours")
            return before(config)
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    path = tmp_path / "swept.py"
    path.write_text((ROOT / "tests" / "files" / "swept.py").read_text() + IN_A_JOB)
    return path


def lines(path: Path) -> list[dict]:
    parsed = map(json.loads, path.read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "seconds"} for line in parsed]


def starts(folder: Path) -> list[int]:
    """How often each loop's job began."""
    return [log.read_text().count("process ") for log in sorted(folder.glob("together/*/log"))]


def assert_same(folder: Path, other: Path, table: dict, wanted: dict):
    assert [(m["name"], m["metrics"]) for m in table["members"]] == [(m["name"], m["metrics"]) for m in wanted["members"]]
    for m in table["members"]:
        assert m["exit"] == "complete"
        logs = [lines(f / "members" / m["name"] / "metrics.jsonl") for f in (folder, other)]
        assert logs[0] == logs[1]


def test_a_job_killed_midway_goes_on_and_every_member_is_as_if_nothing_had_happened(file, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setattr(programs.GroupPrograms, "choose", lambda self, configs, batches, events: (len(configs), 2))
    own = parallel.make_mesh
    monkeypatch.setattr(parallel, "make_mesh", lambda *_: own("data=1", jax.devices()[:1]))
    wanted = sweep(file, folder=tmp_path / "here", lr=[0.1, 0.2], seed=[0, 1])
    monkeypatch.setenv("KILLED", str(tmp_path / "killed"))
    table = sweep(file, folder=tmp_path / "jobs", lr=[0.1, 0.2], seed=[0, 1], on="local", workers=1)
    assert (tmp_path / "killed").exists() and starts(tmp_path / "jobs") == [2]
    assert table["failed"] == 0
    assert_same(tmp_path / "jobs", tmp_path / "here", table, wanted)
