"""Settings chosen by Optuna: what is asked and told, by whom, and what an interruption leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxmodels import cli
from jaxmodels.commands.sweep import sweep
from jaxmodels.console import Console
from jaxmodels.options import Options
from jaxmodels.runs import experiment_file
from jaxmodels.sweeps import programs, space, tpe
from jaxmodels.sweeps.lockstep import Member
from jaxmodels.sweeps.members import Setup

optuna = pytest.importorskip("optuna")
fast = pytest.mark.fast
ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "files" / "swept.py"
VALUES = {"lr": space.Range(1e-3, 1.0), "width": [4, 8, 16], "kind": ["sgd", "adam"]}


class Stop(BaseException):
    """What ends a process, to a study."""


def trials_of(journal: Path) -> list:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    return optuna.load_study(study_name=None, storage=storage).trials


class Folder:
    """A sweep's folder whose members have made-up results: a loss, least at lr 0.03 and width 8."""

    def __init__(self, path: Path, journal: Path):
        self.path, self.journal = path, journal
        path.mkdir(exist_ok=True)
        self.trained: list[str] = []
        self.stop_after = self.lose = -1

    def train(self, members: list[Member]) -> float:
        for member in members:
            if len(self.trained) == self.stop_after:
                raise Stop
            self.trained.append(member.name)
            if len(self.trained) == self.lose:
                continue
            knobs = member.knobs
            loss = (knobs["lr"] - 0.03) ** 2 + abs(knobs["width"] - 8) + 0.01 * knobs["seed"]
            result = {"exit": "complete", "metrics": {"test/loss": loss}}
            if knobs["kind"] == "adam" and knobs["width"] == 16:
                result = {"exit": "NotFinite: the loss of step 3 is not finite", "metrics": {}}
            (self.path / "members" / member.name).mkdir(parents=True)
            (self.path / "members" / member.name / "result.json").write_text(json.dumps(result))
        return 0.5

    def search(self, trials: int, values=VALUES, **what) -> tuple[list[Member], float]:
        setup = Setup(experiment_file.load(FILE), self.path, Options(), None, Console(quiet=True))
        how = tpe.Search(
            values, [{"seed": 0}, {"seed": 1}], trials, "test/loss", "min", {"searched": values, **what}
        )
        return tpe.search(
            setup, how, self.journal, 3, lambda knobs: Member(space.name_of(knobs), knobs, None), self.train
        )


@fast
def test_each_setting_is_trained_with_every_seed_and_told_once(tmp_path):
    folder = Folder(tmp_path / "s", tmp_path / "s" / "study.journal")
    members, compile_s = folder.search(20)
    assert len(set(folder.trained)) == len(folder.trained) == len(members) and compile_s >= 2.5
    trials = trials_of(folder.journal)
    assert len(trials) == 20 and all(t.state.name == "COMPLETE" for t in trials)
    for t in trials:
        knobs = t.user_attrs["knobs"]
        lost = knobs["kind"] == "adam" and knobs["width"] == 16
        loss = (knobs["lr"] - 0.03) ** 2 + abs(knobs["width"] - 8) + 0.005
        assert t.value == (float("inf") if lost else pytest.approx(loss, abs=1e-9))
        assert knobs["lr"] == pytest.approx(t.params["lr"], rel=1e-5) and knobs["width"] in (4, 8, 16)
    later = [t.user_attrs["knobs"]["width"] for t in trials[10:]]
    assert later.count(8) > 5  # what was told is made use of


@fast
def test_more_trials_go_on_in_the_same_study(tmp_path):
    folder = Folder(tmp_path / "s", tmp_path / "j")
    first = folder.search(5)[0]
    done = list(folder.trained)
    second = folder.search(9)[0]
    assert folder.trained[: len(done)] == done and len(set(folder.trained)) == len(folder.trained)
    assert [m.name for m in second[: len(first)]] == [m.name for m in first]
    assert len(trials_of(folder.journal)) == 9
    assert folder.search(9)[0] == second and len(trials_of(folder.journal)) == 9
    with pytest.raises(ValueError, match=r"expected this one\. steps: None there, 8 here"):
        folder.search(9, steps=8)


@fast
def test_trials_left_running_are_taken_up_by_whose_they_are_and_by_nobody_else(tmp_path, monkeypatch):
    mine, other = Folder(tmp_path / "mine", tmp_path / "j"), Folder(tmp_path / "other", tmp_path / "j")
    mine.stop_after = 5  # within the third round of a setting and two seeds
    with pytest.raises(Stop):
        mine.search(8)
    assert [t.state.name for t in trials_of(tmp_path / "j")] == ["COMPLETE"] * 2 + ["RUNNING"]
    other.search(8)
    states = [t.state.name for t in trials_of(tmp_path / "j")]
    assert states == ["COMPLETE"] * 2 + ["RUNNING"] + ["COMPLETE"] * 5
    mine.stop_after = -1
    members, _ = mine.search(8)
    assert len(mine.trained) == len(set(mine.trained)) == 6 and len(members) == 6
    assert [t.state.name for t in trials_of(tmp_path / "j")] == ["COMPLETE"] * 8
    with pytest.raises(ValueError, match="got 8, all of which others have taken"):
        Folder(tmp_path / "third", tmp_path / "j").search(8)


@fast
def test_trials_of_one_who_fell_silent_are_given_up_and_replaced(tmp_path, monkeypatch):
    mine, other = Folder(tmp_path / "mine", tmp_path / "j"), Folder(tmp_path / "other", tmp_path / "j")
    mine.stop_after = 1
    with pytest.raises(Stop):
        mine.search(5)
    monkeypatch.setattr(tpe, "STALE", -1.0)
    other.search(5)
    assert [t.state.name for t in trials_of(tmp_path / "j")] == ["FAIL"] + ["COMPLETE"] * 5
    mine.stop_after = -1
    with pytest.raises(ValueError, match="others have taken"):
        mine.search(5)


@fast
def test_a_setting_that_could_not_be_trained_ends_the_search_and_is_not_told_as_a_value(tmp_path):
    folder = Folder(tmp_path / "s", tmp_path / "j")
    folder.lose = 4
    folder.search(6)
    assert [t.state.name for t in trials_of(tmp_path / "j")] == ["COMPLETE", "FAIL"]
    folder.search(6)
    assert [t.state.name for t in trials_of(tmp_path / "j")] == ["COMPLETE", "FAIL"] + ["COMPLETE"] * 5


@fast
def test_two_in_a_study_draw_different_settings(tmp_path):
    for name in ("a", "b"):
        folder = Folder(tmp_path / name, tmp_path / "j")
        folder.stop_after = 0
        with pytest.raises(Stop):
            folder.search(50)
    rates = [t.params["lr"] for t in trials_of(tmp_path / "j")]
    assert len(rates) == 20 and len(set(rates)) == 20


def test_a_sweep_by_tpe_trains_and_shows_its_settings(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        programs.GroupPrograms, "choose", lambda self, configs, batches, events: (len(configs), 2)
    )
    words = [
        "--search",
        "tpe",
        "--trials",
        "2",
        "--lr",
        "0.01..0.5",
        "--seed",
        "0,1",
        "--metric",
        "test/loss",
    ]
    assert cli.main(["sweep", str(FILE), *words, "--folder", str(tmp_path / "s"), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert len(table["members"]) == 4 and len(table["settings"]) == 2
    told = {t.user_attrs["knobs"]["lr"]: t.value for t in trials_of(tmp_path / "s" / "study.journal")}
    assert told == pytest.approx({s["knobs"]["lr"]: s["mean"] for s in table["settings"]})


@pytest.mark.slow
@fast
@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--seed", "0,1"], "expected another knob to draw"),
        (["--lr", "0.1..0.2", "--trials", "0"], "expected 1 or more"),
    ],
)
def test_bad_input_is_one_sentence(words, what, tmp_path, capsys):
    words = ["--search", "tpe", "--trials", "4", *words]
    assert cli.main(["sweep", str(FILE), "--folder", str(tmp_path / "s"), *words]) == cli.BAD_INPUT
    assert what in capsys.readouterr().err


@fast
def test_without_optuna_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxmodels\[search\]'"):
        sweep(FILE, folder=tmp_path, lr="0.1..0.2", search="tpe", trials=2)


@pytest.mark.thorough  # processes for what is tested above without them
def test_two_processes_share_a_study_and_a_killed_one_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    words = [
        "--search",
        "tpe",
        "--trials",
        "14",
        "--lr",
        "0.01..0.5",
        "--study",
        str(tmp_path / "j"),
        "--metric",
        "test/loss",
    ]

    def start(name: str) -> subprocess.Popen:
        command = [
            sys.executable,
            "-m",
            "jaxmodels",
            "sweep",
            str(FILE),
            *words,
            "--folder",
            str(tmp_path / name),
            "--quiet",
        ]
        return subprocess.Popen(command)

    a, b = start("a"), start("b")
    while len(list(tmp_path.glob("a/members/*/result.json"))) < 2:
        assert a.poll() is None
        time.sleep(0.05)
    os.kill(a.pid, signal.SIGKILL)
    assert a.wait() == -signal.SIGKILL and b.wait() == 0
    assert start("a").wait() == 0
    trials = trials_of(tmp_path / "j")
    assert len(trials) == 14 and all(t.state.name == "COMPLETE" for t in trials)
    whose = [t.user_attrs["by"] for t in trials]
    assert len(set(whose)) == 2
    for name in ("a", "b"):
        by = json.loads((tmp_path / name / "study.json").read_text())["by"]
        assert len(list(tmp_path.glob(f"{name}/members/*/result.json"))) == whose.count(by)
