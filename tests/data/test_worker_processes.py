"""GrainPipeline with worker processes: the same batches, and nothing left behind however a process ends."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from jaxmodels.data.grain_pipeline import GrainPipeline

ROOT = Path(__file__).parents[2]


def load(i):
    return {
        "x": np.full((40, 50), i, np.float32),
        "y": np.int32(i),
        "pi": np.float64(3.14),
        "small": np.zeros((0, 2)),
    }


def shift(example, rng):
    return {**example, "x": example["x"] + rng.random((40, 50), np.float32)}


def bad(i):
    if i == 21:
        raise KeyError("no such pixel")
    return load(i)


def workers_of(data):
    return data._stream._workers._processes


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids, seconds):
    until = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("workers, threads", [(1, 2), (3, 0)])
def test_the_batches_do_not_depend_on_workers(workers, threads):
    options = {"batch": 7, "seed": 2, "load": load, "augment": shift}
    plain = GrainPipeline(range(50), threads=0, **options)
    data = GrainPipeline(range(50), workers=workers, threads=threads, **options)
    for step, start, stop in [(3, 0, 7), (4, 0, 7), (5, 0, 7), (0, 2, 4), (6, 0, 7), (7, 0, 7), (8, 0, 7)]:
        a, b = plain.rows(step, start, stop), data.rows(step, start, stop)
        assert a.keys() == b.keys()
        assert all(
            np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype and a[k].shape == b[k].shape for k in a
        )
    pids = [process.pid for process in workers_of(data)]
    data.close()
    assert len(pids) == workers and wait_until_gone(pids, 5)


def test_an_error_in_a_worker_names_the_example_and_says_what_it_said():
    data = GrainPipeline(range(50), batch=8, load=bad, workers=2)
    assert data.rows(0, 0, 8)["y"].tolist() == list(range(8))
    data.rows(1, 0, 8)
    with pytest.raises(ValueError, match=r"example 21 \(21\) could not be loaded: KeyError: 'no such pixel'"):
        data.rows(2, 0, 8)
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_is_reported_soon_and_reading_can_go_on():
    data = GrainPipeline(range(5_000), batch=64, load=load, workers=2)
    data.rows(0, 0, 64)
    os.kill(workers_of(data)[0].pid, signal.SIGKILL)
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match=r"worker process 0 ended with exit code -9 .*examples \["):
        for step in range(1, 60):
            data.rows(step, 0, 64)
    assert time.monotonic() - begun < 20
    assert data.rows(5, 0, 64)["y"][0] == 320
    data.close()


def test_a_function_that_cannot_be_sent_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match="functions of a module"):
        GrainPipeline(range(5), batch=1, load=lambda i: {"y": i}, workers=1).rows(0, 0, 1)


def test_forgetting_the_pipeline_ends_its_workers():
    data = GrainPipeline(range(50), batch=8, load=load, workers=1)
    data.rows(0, 0, 8)
    pids = [process.pid for process in workers_of(data)]
    del data
    assert wait_until_gone(pids, 5)


SCRIPT = """
import importlib.util, signal, sys, time
import numpy as np
from jaxmodels.data.grain_pipeline import GrainPipeline

def main():
    if sys.argv[1] == "term":
        signal.signal(signal.SIGTERM, lambda *_: None)
    spec = importlib.util.spec_from_file_location("an_experiment", sys.argv[2])  # as an experiment
    module = sys.modules["an_experiment"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    data = GrainPipeline(range(1000), batch=8, load=module.load, workers=2)
    data.rows(0, 0, 8)
    print(*(process.pid for process in data._stream._workers._processes), flush=True)
    if sys.argv[1] == "end":
        return
    if sys.argv[1] == "term":
        sys.stdin.readline()
        for step in range(1, 40):
            data.rows(step, 0, 8)
        print("read on", flush=True)
        return
    time.sleep(60)

if __name__ == "__main__":
    main()
"""


def start(tmp_path, how):
    (tmp_path / "script.py").write_text(SCRIPT)
    text = "import numpy as np\ndef load(i):\n    return {'x': np.full((100, 100), i, np.float32)}\n"
    (tmp_path / "experiment.py").write_text(textwrap.dedent(text))
    command = [sys.executable, str(tmp_path / "script.py"), how, str(tmp_path / "experiment.py")]
    pipe = subprocess.PIPE
    parent = subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    )
    return parent, [int(pid) for pid in parent.stdout.readline().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", ["end", "kill"])
def test_no_worker_outlives_its_parent_however_that_ends(tmp_path, how):
    parent, pids = start(tmp_path, how)
    assert len(pids) == 2, parent.communicate()
    if how == "kill":
        parent.send_signal(signal.SIGKILL)
    _, errors = parent.communicate(timeout=30)
    assert parent.returncode == (-9 if how == "kill" else 0) and not errors
    assert wait_until_gone(pids, 10)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_leave_a_signal_to_the_whole_group_to_their_parent(tmp_path):
    parent, pids = start(tmp_path, "term")
    os.killpg(parent.pid, signal.SIGTERM)
    out, errors = parent.communicate("\n", timeout=30)
    assert out == "read on\n" and not errors and parent.returncode == 0
    assert wait_until_gone(pids, 10)


EXPERIMENT = """
import multiprocessing, os, signal
from dataclasses import dataclass
import numpy as np
import optax
from jaxmodels import Experiment
from jaxmodels.data.grain_pipeline import GrainPipeline
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.classify import classify

@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0

def load(i):
    if i == 70 and multiprocessing.parent_process() is not None:  # in a worker
        os.kill(os.getpid(), signal.SIGKILL)
    return {"image": np.full((2, 2, 1), i, np.float32), "label": np.int32(i % 2)}

def build(config):
    spec = {"image": ((2, 2, 1), np.dtype(np.float32)), "label": ((), np.dtype(np.int32))}
    data = GrainPipeline(range(80), batch=8, load=load, workers=1, spec=spec)
    return Experiment(task=classify(MLP((), 2)), optimizer=optax.sgd(0.1), train=data, steps=10)
"""


def test_a_run_whose_worker_is_killed_ends_with_one_message_and_status_1(tmp_path, capsys):
    from jaxmodels.cli import main

    (tmp_path / "one.py").write_text(EXPERIMENT)
    begun = time.monotonic()
    assert main(["train", str(tmp_path / "one.py"), "--folder", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said and time.monotonic() - begun < 60
    assert (
        "ended with exit code -9" in said and "expected these or later ones. Look at these examples" in said
    )
