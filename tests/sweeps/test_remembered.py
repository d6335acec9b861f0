"""A sweep's members remember their data as runs do: what they learned from it, and that it was this data."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from runs.test_learned_in_runs import FOLDERS, image_folders, said  # noqa: F401  (a fixture)

from jaxmodels import sweep, train
from jaxmodels.parallel import mesh
from jaxmodels.runs import experiment_file, fingerprints
from jaxmodels.sweeps import executors, programs, worker
from jaxmodels.sweeps.extract import extract_member

EXPERIMENT = """
import os
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from jaxmodels import Experiment, optim
from jaxmodels.data.learned import learned
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.regress import regress

@dataclass(frozen=True, kw_only=True)
class Config:
    words: int = 2
    lr: float = 0.1

def table(split):
    target = np.full(8, os.environ.get(split, "1"), np.float32)
    return {"features": np.ones((8, 2), np.float32), "target": target}

def build(config):
    learned("the words", lambda: Path("words.txt").read_text().split()[: config.words])
    train, test = (ArrayPipeline(table(split), batch=8) for split in ("train", "test"))
    task, optimizer = regress(MLP((), 1)), optim.sgd(config.lr)
    return Experiment(task=task, optimizer=optimizer, train=train, evals={"test": test}, steps=2)
"""
COLOURED = FOLDERS.replace("    epochs", "    lr: float = 1.0\n    epochs").replace(
    "sgd(1.0)", "sgd(config.lr)"
)


@pytest.fixture(autouse=True)
def one_program_on_one_device(monkeypatch):
    monkeypatch.setattr(mesh, "default_sizes", lambda devices: {"data": 1})
    monkeypatch.setattr(programs.GroupPrograms, "choose", lambda self, configs, *_: (len(configs), 2))


def written(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def changed(text: str) -> str:
    other = "swept holds another sweep: its member lr=0.1 has other data:"
    return f"{other}\n  {text}: its examples, or their order, are others"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """An experiment whose targets are $train and $test, and that learns as many words as a knob says."""
    monkeypatch.chdir(tmp_path)
    Path("exp.py").write_text(EXPERIMENT)
    Path("words.txt").write_text("a b c")
    return "exp.py"


def test_a_sweep_is_not_gone_on_with_on_other_data_nor_is_a_run_that_was_taken_out_of_it(file, monkeypatch):
    def go():
        return sweep(file, folder="swept", lr=[0.1, 0.2])

    go()
    extract_member("swept", "lr=0.1", "taken")
    before = written(Path("swept"))
    monkeypatch.setenv("train", "-1")
    with pytest.raises(ValueError) as error:
        go()
    assert changed("the training data") in str(error.value) and "evaluation" not in str(error.value)
    with pytest.raises(ValueError, match="taken holds another experiment:\n  the training data"):
        train(file, folder="taken", lr=0.1)
    monkeypatch.delenv("train")
    monkeypatch.setenv("test", "100")
    with pytest.raises(ValueError) as error:
        go()
    assert changed("the data of the evaluation 'test'") in str(error.value)
    monkeypatch.delenv("test")
    assert written(Path("swept")) == before
    assert [m["exit"] for m in go()["members"]] == ["complete"] * 2
    built = experiment_file.open_file("taken")[0].build(experiment_file.open_file("taken")[1])

    def of(told):
        return {name: one["fingerprint"] for name, one in told.items()}

    assert of(json.loads(Path("taken/knobs.json").read_text())["data"]) == of(
        fingerprints.fingerprints(built)
    )


def test_a_member_that_is_taken_predicts_without_its_data(image_folders):  # noqa: F811
    Path("colours.py").write_text(COLOURED)
    sweep("colours.py", folder="swept", lr=[0.5, 1.0])
    (image_folders / "data" / "train" / "red").rename(
        image_folders / "data" / "train" / "a red"
    )  # now the first by name
    assert said(extract_member("swept", "lr=1.0", "taken"))["class"] == "red"
    shutil.rmtree("data")
    assert said("taken")["class"] == said(extract_member("swept", "lr=0.5", "other"))["class"] == "red"
    values = json.loads(Path("taken/learned.json").read_text())["values"]
    assert values["classes of train"] == values["names of the classes"] == ["blue", "green", "red"]


def test_members_of_which_a_knob_decides_what_is_learned_keep_their_own(file):
    sweep(file, folder="swept", words=[1, 3])
    Path("words.txt").write_text(
        "x y z"
    )  # no example hangs on the words, so the sweep goes on, with those that it knows
    sweep(file, folder="swept", words=[1, 3])

    def values(of):
        return json.loads(Path(of, "learned.json").read_text())["values"]["the words"]

    assert [values(f"swept/members/words={n}") for n in (1, 3)] == [["a"], ["a", "b", "c"]]
    assert values(extract_member("swept", "words=3", "taken")) == ["a", "b", "c"]


def test_members_that_jobs_train_remember_the_same(file, monkeypatch):
    class Here:
        """Jobs that are over when they have been submitted."""

        def submit(self, words, number):
            return worker.train_loops(
                Path(words[0]), [Path(words[0]) / "together" / name for name in words[1:]]
            )

        def done(self, job):
            return True

    monkeypatch.setattr(executors, "open_executor", lambda *_: contextlib.nullcontext(Here()))
    sweep(file, folder="swept", lr=[0.1, 0.2], on="local", workers=1)
    taken = extract_member("swept", "lr=0.1", "taken")
    assert json.loads((taken / "learned.json").read_text())["values"]["the words"] == ["a", "b"]
    assert json.loads((taken / "knobs.json").read_text())["data"].keys() == {"train", "evals/test"}
    monkeypatch.setenv("train", "-1")
    with pytest.raises(ValueError) as error:
        sweep(file, folder="swept", lr=[0.1, 0.2], on="local", workers=1)
    assert changed("the training data") in str(error.value)
