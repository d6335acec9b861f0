"""Jobs of a sweep: real processes by submitit, a Slurm of three scripts, a Ray cluster of this computer."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from jaxmodels import cli
from jaxmodels.commands.sweep import sweep
from jaxmodels.parallel import mesh
from jaxmodels.sweeps import executors, programs, worker
from jaxmodels.sweeps.lockstep import Stopped
from jaxmodels.sweeps.members import new_folder

ROOT = Path(__file__).parents[2]
FILE = str(ROOT / "tests" / "files" / "swept.py")
fast = pytest.mark.fast
by_submitit = pytest.mark.skipif(
    find_spec("submitit") is None, reason="needs submitit: pip install 'jaxmodels[slurm]'"
)

# Read in the job alone. Once each, where the folder ONCE says so: SIGTERM to the sweep at step 7, kill -9 of
# the job at 9.
IN_A_JOB = """
import os, signal, sys, time
from pathlib import Path

if sys.argv[0].endswith("worker.py"):
    from jaxmodels.sweeps import programs

    programs.GroupPrograms.choose = lambda self, configs, batches, events: (len(configs), 2)
    own, before = ArrayPipeline.rows, build

    def once(what):
        try:
            Path(os.environ["ONCE"], what).rename(Path(os.environ["ONCE"], what + " done"))
        except (KeyError, FileNotFoundError):
            return False
        return True

    def rows(self, step, start, stop):
        if step == 7 and once("told"):
            os.kill(int(os.environ["SWEEP"]), signal.SIGTERM)
            time.sleep(2)
        if step == 9 and once("killed"):
            while not list(Path(__file__).parent.glob("together/*/checkpoints/8/*")):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return own(self, step, start, stop)

    def build(config):
        if config.width == 4 and "REFUSED" in os.environ:
            raise ValueError("no such width\\nof ours")
        return before(config)

    ArrayPipeline.rows = rows
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    path = tmp_path / "swept.py"
    path.write_text(Path(FILE).read_text() + IN_A_JOB)
    return path


def lines(path: Path) -> list[dict]:
    parsed = map(json.loads, path.read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "seconds"} for line in parsed]


def starts(folder: Path) -> list[int]:
    """How often each loop's job began."""
    return [log.read_text().count("process ") for log in sorted(folder.glob("together/*/log"))]


@by_submitit
def test_jobs_told_to_stop_save_a_killed_one_goes_on_and_members_are_as_if_nothing_had_happened(
    file, tmp_path, monkeypatch
):
    knobs = {"lr": [0.1, 0.2], "seed": [0, 1]}
    with monkeypatch.context() as patch:
        patch.setattr(
            programs.GroupPrograms, "choose", lambda self, configs, batches, events: (len(configs), 2)
        )
        patch.setattr(mesh, "default_sizes", lambda devices: {"data": 1})
        wanted = sweep(file, folder=tmp_path / "here", **knobs)
    for name in ("told", "killed"):
        (tmp_path / name).touch()
    monkeypatch.setenv("ONCE", str(tmp_path))
    monkeypatch.setenv("SWEEP", str(os.getpid()))
    jobs = {"folder": tmp_path / "jobs", "on": "local", "workers": 1, **knobs}
    with pytest.raises(Stopped):
        sweep(file, **jobs)
    assert "saved at step" in (tmp_path / "jobs" / "together" / "1" / "log").read_text()
    table = sweep(file, **jobs)
    assert (tmp_path / "killed done").exists() and starts(tmp_path / "jobs") == [3]
    assert table["failed"] == 0
    assert [(m["name"], m["metrics"]) for m in table["members"]] == [
        (m["name"], m["metrics"]) for m in wanted["members"]
    ]
    for m in table["members"]:
        here, there = (
            lines(tmp_path / of / "members" / m["name"] / "metrics.jsonl") for of in ("here", "jobs")
        )
        assert here == there


# A job is a process of this computer; its script stays in the spool, as N while it runs and as N.over after.
SLURM = {
    "sbatch": """
n=$(ls $SPOOL | wc -l)
cp $1 $SPOOL/$n
export SLURM_JOB_ID=$n SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0
(bash $SPOOL/$n; mv $SPOOL/$n $SPOOL/$n.over) > /dev/null 2>&1 &
echo "Submitted batch job $n"
""",
    "srun": """
while [[ $1 == --* ]]; do [[ $1 == --unbuffered ]] || shift; shift; done
exec "$@"
""",
    "sacct": """
echo "JobID|State|NodeList"
for f in $SPOOL/*; do
  n=$(basename $f)
  [[ $n == *.over ]] && echo "${n%.over}|FAILED|here" || echo "$n|RUNNING|here"
done
""",
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """What submitit asks of Slurm, as scripts; gives the folder in which what was submitted stays."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "spool").mkdir()
    for name, text in SLURM.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SPOOL", str(tmp_path / "spool"))
    return tmp_path / "spool"


@by_submitit
def test_what_fails_in_a_job_is_one_line_and_the_other_members_are_not_lost(
    file, slurm, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("REFUSED", "1")
    words = [
        "--width",
        "4,8",
        "--on",
        "slurm",
        "--resources",
        "partition=gpu,time=60",
        "--folder",
        str(tmp_path / "s"),
    ]
    assert cli.main(["sweep", str(file), *words, "--json"]) == 1
    out, err = capsys.readouterr()
    table = json.loads(out)
    assert [m["exit"] for m in table["members"]] == ["failed: no such width of ours", "complete"]
    assert (
        "is started again: no such width of ours" in err
        and "1 members failed, width=4: no such width of ours" in err
    )
    assert sorted(starts(tmp_path / "s")) == [1, 2]
    assert (
        "--partition=gpu" in (slurm / "0.over").read_text() and "--time=60" in (slurm / "0.over").read_text()
    )
    monkeypatch.delenv("REFUSED")
    finished = (tmp_path / "s" / "members" / "width=8" / "result.json").stat().st_mtime_ns
    assert cli.main(["sweep", str(file), *words, "--json"]) == 0  # the same command tries the lost one again
    assert [m["exit"] for m in json.loads(capsys.readouterr()[0])["members"]] == ["complete", "complete"]
    assert (tmp_path / "s" / "members" / "width=8" / "result.json").stat().st_mtime_ns == finished


@fast
def test_a_loop_has_one_trainer_and_one_number(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: new_folder(tmp_path), range(40)))
    assert len(set(folders)) == 40
    executors.check_free(tmp_path, "")
    with worker.held(folders[0]):
        assert worker.holder(folders[0]) == (os.getpid(), platform.node())
        executors.check_free(tmp_path, "local")  # its jobs wait
        with pytest.raises(ValueError, match="a job of --on, still trains"):
            executors.check_free(tmp_path, "")
    assert worker.holder(folders[0]) is None


@pytest.mark.slow
@fast
@by_submitit
@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--on", "local", "--search", "halving"], "Leave out --on local"),
        (["--on", "local", "--resources", "gpus"], "got gpus without a value"),
        (["--on", "local", "--resources", "time=3"], "expected gpus_per_node alone"),
        (["--on", "local", "--workers", "0"], "expected 1 or more"),
        (["--on", "slurm"], 'Could not detect "srun"'),
    ],
)
def test_bad_input_is_one_sentence(words, what, tmp_path, capsys):
    assert (
        cli.main(["sweep", FILE, "--lr", "0.1,0.2", "--folder", str(tmp_path / "s"), *words]) == cli.BAD_INPUT
    )
    err = capsys.readouterr().err
    assert what in err and err.count("\n") == 1


@fast
@by_submitit
def test_names_that_slurm_does_not_know_are_named(slurm, tmp_path, capsys):
    words = [
        "--lr",
        "0.1,0.2",
        "--folder",
        str(tmp_path / "s"),
        "--on",
        "slurm",
        "--resources",
        "partitoin=gpu",
    ]
    assert cli.main(["sweep", FILE, *words]) == cli.BAD_INPUT
    err = capsys.readouterr().err
    assert "partitoin" in err and "partition" in err.replace("partitoin", "") and err.count("\n") == 1


@fast
def test_absent_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    for on, extra in (("local", "slurm"), ("ray", "ray")):
        with pytest.raises(ImportError, match=rf"pip install 'jaxmodels\[{extra}\]'"):
            sweep(FILE, folder=tmp_path, lr=[0.1, 0.2], on=on)


IN_RAY = """
import json, sys, warnings
warnings.simplefilter("error")
import ray
from jaxmodels.commands.sweep import sweep
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
print(json.dumps(sweep(sys.argv[1], folder=sys.argv[2], lr=[0.1, 0.2], seed=[0, 1], on="ray")))
"""


@pytest.mark.thorough  # a cluster takes half a minute to start; what jobs do is tested above
def test_tasks_of_ray_train_members_and_a_killed_one_goes_on(file, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    (tmp_path / "killed").touch()
    monkeypatch.setenv("ONCE", str(tmp_path))
    monkeypatch.setenv("RAY_worker_niceness", "0")
    command = [sys.executable, "-c", IN_RAY, str(file), str(tmp_path / "s")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    table = json.loads(run.stdout)
    assert [m["exit"] for m in table["members"]] == ["complete"] * 4
    assert sorted(starts(tmp_path / "s")) == [1, 2]
    alone = sweep(file, folder=tmp_path / "here", lr=[0.1, 0.2], seed=[0, 1])
    for a, b in zip(table["members"], alone["members"], strict=True):
        assert a["metrics"] == pytest.approx(b["metrics"], rel=1e-5)
