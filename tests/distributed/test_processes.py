"""Real runs of several processes over Gloo: the results of one process, and what happens to the others.

The devices are simulated. Everything has a time limit, and nothing is left running.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from files import slow_mlp
from instances import first
from runs.test_code import IMPORTED, write
from states import same_bits

import jaxmodels
from jaxmodels import Options
from jaxmodels.runs.checkpoint import Checkpoints
from jaxmodels.runs.code import read_beside
from jaxmodels.state import abstract_state
from jaxmodels.training.check import check

SLOW, TESTS = slow_mlp.__file__, Path(__file__).parents[1]
LIMIT = 120.0  # seconds for anything to end
MODEL = ["--dropout", "0.1", "--steps-per-dispatch", "1"]


class Run:
    """One process of ours and what it says."""

    def __init__(self, said: Path, *words: Any, devices: int = 1):
        env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
        env["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), str(TESTS)])
        self.out, self.err = said.with_suffix(".out"), said.with_suffix(".err")
        with self.out.open("w") as out, self.err.open("w") as err:
            command = [sys.executable, "-m", "jaxmodels", *map(str, words)]
            self.process = subprocess.Popen(command, env=env, stdout=out, stderr=err, start_new_session=True)

    def ends(self) -> int:
        """Its exit status, as a shell has it."""
        code = self.process.wait(LIMIT)
        return 128 - code if code < 0 else code


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Iterator[Callable[..., Run]]:
    """Starts a command; whatever still runs at the end is killed, and is a failure if it is an orphan."""
    base, runs = tmp_path_factory.mktemp("said"), []

    def begin(*words: Any, devices: int = 1) -> Run:
        runs.append(Run(base / str(len(runs)), *words, devices=devices))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()
    assert until(lambda: not ours(str(base.parent)), 10), ours(str(base.parent))


def ours(text: str) -> list[str]:
    """Command lines, with their process ids, of what runs with this text among its words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if text in line and "jaxmodels train" in line:
            found.append(f"{path.parent.name} {line}")
    return found


def until(happens: Callable[[], Any], seconds: float = LIMIT) -> bool:
    """Whether it happens in so much time."""
    end = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def cluster(processes: int) -> list[list[str]]:
    """What makes processes find each other, for each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{probe.getsockname()[1]}"
    return [
        ["--coordinator", at, "--processes", str(processes), "--process", str(i)] for i in range(processes)
    ]


def losses(folder: Path) -> dict[tuple[int, str], float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        (line["step"], name): line[name]
        for line in lines
        for name in ("train/loss", "test/loss")
        if name in line
    }


def same_losses(folder: Path, other: Path) -> None:
    here, there = losses(folder), losses(other)
    assert here.keys() == there.keys()
    np.testing.assert_allclose(list(here.values()), list(there.values()), rtol=2e-5)


def state(folder: Path, step: int) -> Any:
    experiment = slow_mlp.build(slow_mlp.Config(dropout=0.1))
    like, _ = abstract_state(experiment, check(experiment, Options(mesh="data=1")))
    got = Checkpoints(folder / "checkpoints").restore(like, step)
    assert got is not None
    return got[1]


def pid(folder: Path, process: int) -> int:
    """Of the one that trains."""
    [beats] = (folder / ".beats").glob("*")
    assert until(lambda: (beats / str(process)).read_text())
    return json.loads((beats / str(process)).read_text())["pid"]


def parent(child: int) -> int:
    return int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    jaxmodels.train(
        SLOW, folder=str(folder), mesh="data=1", dropout=0.1, steps_per_dispatch=1, seconds=0.0, keep=9
    )
    return folder


@pytest.fixture(scope="module")
def pair(start, tmp_path_factory) -> tuple[Path, Run]:
    """The run of two processes with two devices each, parameters split, and what process 0 said."""
    base = tmp_path_factory.mktemp("pair")
    (base / "asked").mkdir()
    words = [
        SLOW,
        "--folder",
        base / "run",
        "--asked",
        base / "asked",
        "--mesh",
        "data=2,fsdp=2",
        *MODEL,
        "--json",
    ]
    run = start("launch", "--processes", 2, *words, "--track", "tensorboard", "--keep", 9, devices=2)
    assert run.ends() == 0, run.err.read_text()
    return base / "run", run


def test_two_processes_have_the_losses_of_one(pair, alone):
    same_losses(pair[0], alone)


def test_each_process_reads_its_own_rows_alone(pair):
    for process, rows in enumerate([(0, 4), (4, 8)]):
        lines = (pair[0].parent / "asked" / f"{process}.txt").read_text().splitlines()
        asked = [tuple(map(int, line.split())) for line in lines]
        assert {(start, stop) for _, start, stop in asked} == {rows}
        assert {step for step, _, _ in asked} == set(range(24))


def test_predictions_are_gathered_beside_their_examples_and_scored_by_process_0(pair):
    said = json.loads(pair[1].out.read_text())["metrics"]
    assert (said["test/apart"], said["test/scored"]) == (0.0, 13)
    assert said["test/pid"] == json.loads((pair[0] / "environment.json").read_text())["pid"]


def test_everything_is_written_once(pair):
    folder, run = pair
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics if "train/loss" in line] == [4, 8, 12, 16, 20, 24]
    assert [line["step"] for line in metrics if "test/loss" in line] == [6, 12, 18, 24]
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert json.loads((folder / "result.json").read_text())["baselines"]
    assert len(run.out.read_text().splitlines()) == 1  # of JSON
    assert run.err.read_text().count("step 6  test/loss") == 1
    assert "step 6" not in (folder / "processes" / "1.log").read_text()
    assert not (folder / ".beats").exists()


def test_checkpoints_of_two_processes_are_read_by_one_and_hold_what_one_would_have_written(pair, alone):
    for step in (6, 24):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
            *(state(folder, step)._replace(key=0) for folder in (pair[0], alone)),
        )


def test_evaluation_by_two_processes_gives_the_metrics_of_the_run_of_one(pair, alone, start):
    both = [start("evaluate", alone, "--step", 24, "--json", *words) for words in cluster(2)]
    assert [one.ends() for one in both] == [0, 0], both[1].err.read_text()
    assert both[1].out.read_text() == ""
    got, said = json.loads(both[0].out.read_text())["metrics"], json.loads(pair[1].out.read_text())["metrics"]
    assert got["test/loss"] == pytest.approx(said["test/loss"], rel=1e-5)


def test_a_killed_process_is_named_and_the_run_goes_on_to_the_same_bits(pair, start, tmp_path):
    """By launch, which starts both again; the first run of two is the one that nothing happened to."""
    words = [
        SLOW,
        "--folder",
        tmp_path / "run",
        "--mesh",
        "data=2,fsdp=2",
        *MODEL,
        "--keep",
        9,
        "--seconds",
        0.2,
    ]
    run = start("launch", "--processes", 2, "--restarts", 1, *words, devices=2)
    assert until(lambda: (tmp_path / "run" / "checkpoints" / "6").exists())
    victim = pid(tmp_path / "run", 1)
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    lost = f"process 1 ({socket.gethostname()}, pid {victim})"
    named = f"error: {lost} was ended by SIGKILL, so process 0 stops too"
    assert until(lambda: named in run.err.read_text())
    assert time.monotonic() - killed < 30
    assert run.ends() == 0, run.err.read_text()
    assert "started again (1 of 1)" in run.err.read_text()
    assert "going on from step" in run.out.read_text()
    same_bits(state(tmp_path / "run", 24), state(pair[0], 24))


def test_when_process_0_falls_silent_with_its_guard_the_other_names_it_and_ends_with_76(start, tmp_path):
    words = [
        "train",
        SLOW,
        "--folder",
        tmp_path / "run",
        *MODEL,
        "--seconds",
        0.2,
        "--steps",
        500,
        "--lost-after",
        3,
    ]
    both = [start(*words, *others) for others in cluster(2)]
    assert until(lambda: (tmp_path / "run" / "checkpoints" / "6").exists())
    victim = pid(tmp_path / "run", 0)
    assert parent(victim) == both[0].process.pid
    for gone in (both[0].process.pid, victim):
        os.kill(gone, signal.SIGKILL)
    killed = time.monotonic()
    assert both[1].ends() == 76
    assert time.monotonic() - killed < 15
    host = socket.gethostname()
    assert f"error: process 0 ({host}, pid {victim}) has given no sign of life for" in both[1].err.read_text()


@pytest.mark.parametrize("others", first(1, [1, 4]))
def test_sigterm_to_one_saves_all_at_one_step_from_which_fewer_and_more_go_on(alone, start, tmp_path, others):
    words = ["train", SLOW, "--folder", tmp_path / "run", *MODEL, "--seconds", 0.1]
    both = [start(*words, *others) for others in cluster(2)]
    assert until(lambda: (tmp_path / "run" / "checkpoints" / "6").exists())
    os.kill(pid(tmp_path / "run", 1), signal.SIGTERM)
    assert [one.ends() for one in both] == [143, 143]
    step = Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1]
    assert f"saved at step {step:,}" in both[0].out.read_text()
    assert 6 < step < 24
    again = [start(*words, *where) for where in (cluster(others) if others > 1 else [[]])]
    assert [one.ends() for one in again] == [0] * others, again[0].err.read_text()
    assert f"going on from step {step}" in again[0].out.read_text()
    same_losses(tmp_path / "run", alone)


def test_a_process_that_cannot_write_its_part_of_a_checkpoint_stops_all(start, tmp_path):
    words = [SLOW, "--folder", tmp_path / "run", *MODEL, "--mesh", "fsdp=2", "--full", 1]
    run = start("launch", "--processes", 2, *words)
    assert run.ends() == 1
    assert "failed with status 1, so process 0 stops too" in run.err.read_text()
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"] <= 18


def test_a_killed_launch_leaves_no_process_behind(start, tmp_path):
    run = start(
        "launch",
        "--processes",
        2,
        SLOW,
        "--folder",
        tmp_path / "run",
        "--hangs",
        1,
        "--steps-per-dispatch",
        1,
    )
    assert until(lambda: (tmp_path / "run" / "metrics.jsonl").exists())
    assert ours(str(tmp_path))
    run.process.kill()
    assert until(lambda: not ours(str(tmp_path)), 20)


def test_a_step_that_never_comes_ends_with_the_stacks_and_75_but_a_slow_evaluation_does_not(start, tmp_path):
    run = start(
        "train", SLOW, "--folder", tmp_path / "run", "--hangs", 0, "--stall-after", 2, "--scoring", 4, *MODEL
    )
    assert run.ends() == 75
    said = run.err.read_text()
    assert "error: got no completed step for 2 s; expected one within --stall-after" in said
    assert "slow_mlp.py" in said
    assert losses(tmp_path / "run").keys() >= {(6, "test/loss")}


def test_modules_beside_the_experiment_are_found_by_all_processes_and_kept_once(start, tmp_path):
    run = start("launch", "--processes", 2, write(tmp_path / "here"), "--folder", tmp_path / "run")
    assert run.ends() == 0, run.err.read_text()
    assert sorted(read_beside(tmp_path / "run")) == IMPORTED
    assert json.loads((tmp_path / "run" / "result.json").read_text())["exit"] == "complete"
