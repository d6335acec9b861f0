"""A run remembers what it learned from its data: its results mean the same whatever became of the data."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from jaxmodels import evaluate, predict, train
from jaxmodels.commands.report import report
from jaxmodels.data.formats.images import image_folder

fast = pytest.mark.fast

FOLDERS = """
from dataclasses import dataclass
import numpy as np
from jaxmodels import Display, Experiment, optim
from jaxmodels.data.drawing import captioned
from jaxmodels.data.formats.images import image_folder, read_image
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.classify import classify, predictor

@dataclass(frozen=True, kw_only=True)
class Config:
    data: str = "data"
    epochs: int = 30

def build(config):
    model = MLP((), 3)
    train, test = (image_folder(f"{config.data}/{part}", size=4, batch=3) for part in ("train", "test"))
    read = lambda path: {"image": read_image(path, 4)}
    return Experiment(task=classify(model), optimizer=optim.sgd(1.0), train=train, evals={"test": test},
        steps=config.epochs * train.steps,
        predictor=predictor(model, train.classes, read=read, caption=captioned),
        display=Display(classes=lambda: train.classes))
"""
COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}

TABLE = """
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from jaxmodels import Experiment, Predictor, optim
from jaxmodels.data.formats.tables import read_csv
from jaxmodels.data.learned import learned
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.regress import regress

@dataclass(frozen=True, kw_only=True)
class Config:
    data: str = "table.csv"

def levels(config):
    return learned("towns", lambda: sorted({str(x) for x in read_csv(config.data)["town"]}))

def scale(config):
    def of():
        x = read_csv(config.data)["x"].astype(float)
        return {"mean": x.mean(), "deviation": x.std()}
    return learned("scale of x", of)

def features(config, x, town):
    its, all = scale(config), levels(config)
    near = [[name == str(one) for name in all] for one in town]
    return np.c_[(np.asarray(x, float) - its["mean"]) / its["deviation"], near].astype(np.float32)

def build(config):
    model = MLP((), 1)
    def arrays():
        table = read_csv(config.data)
        target = table["y"].astype(np.float32)
        return {"features": features(config, table["x"], table["town"]), "target": target}
    def read(path):
        x, town = Path(path).read_text().split(",")
        return {"features": features(config, [x], [town])[0]}
    predict = lambda params, extra, batch: model.apply({"params": params}, batch["features"])
    draw = lambda path, y: np.zeros((1, 1, 3), np.uint8)
    return Experiment(task=regress(model), optimizer=optim.sgd(0.1),
        train=ArrayPipeline(arrays, batch=8, seed=0), steps=20,
        predictor=Predictor(read, predict, lambda y: {"y": float(y[0])}, draw))
"""


def rows(n: int) -> str:
    """A table of n districts in three towns; the first half lies elsewhere than the second."""
    towns = ["Aachen", "Bonn", "Celle"]
    return "\n".join(["x,town,y", *(f"{100 + i},{towns[i * 3 // n]},{i % 7}" for i in range(n))]) + "\n"


@pytest.fixture
def image_folders(tmp_path, monkeypatch):
    """data/train and data/test of three colours, and an experiment that learns them."""
    image = pytest.importorskip("PIL.Image")
    for part in ("train", "test"):
        for name, colour in COLOURS.items():
            (tmp_path / "data" / part / name).mkdir(parents=True)
            image.new("RGB", (4, 4), colour).save(tmp_path / "data" / part / name / "0.png")
    (tmp_path / "colours.py").write_text(FOLDERS)
    image.new("RGB", (4, 4), COLOURS["red"]).save(tmp_path / "it.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(run, file="it.png"):
    return {
        k: v
        for k, v in predict(run, [file], mesh="data=1", warn=lambda text: None)[0].items()
        if k != "picture"
    }


def test_a_renamed_class_folder_renames_no_answer(image_folders):
    train("colours.py", folder="run", mesh="data=1")
    before = said("run")
    assert before["class"] == "red"
    (image_folders / "data" / "train" / "red").rename(
        image_folders / "data" / "train" / "a red"
    )  # now the first by name
    assert said("run") == before


def test_a_run_predicts_without_its_data(image_folders):
    train("colours.py", folder="run", mesh="data=1")
    before = said("run")
    shutil.rmtree("data")
    assert said("run") == before


def test_a_class_folder_that_is_missing_in_test_shifts_no_label(image_folders):
    shutil.rmtree("data/test/blue")
    assert train("colours.py", folder="run", mesh="data=1").metrics["test/accuracy"] == 1.0


@fast
@pytest.mark.parametrize("below", ["", "test"], ids=["bare", "in a folder"])
def test_the_only_class_folder_in_an_archive_for_testing_has_the_label_of_training(image_folders, below):
    shutil.make_archive("train", "zip", "data/train")
    for name in ("blue", "green"):
        shutil.rmtree(f"data/test/{name}")
    for name in ("a", "b"):  # folders below that of the class are none of their own
        shutil.copytree("data/test/red", f"data/test/red/{name}", ignore=shutil.ignore_patterns("a", "b"))
    shutil.make_archive("test", "zip", "data" if below else "data/test", below or None)
    test = image_folder("test.zip", size=4, batch=3)
    assert test.classes == ("blue", "green", "red")
    assert test.rows(0, 0, 3)["label"].tolist() == [2, 2, 2]
    alone = image_folder("test.zip", classes=["red"], size=4, batch=3)
    assert alone.rows(0, 0, 3)["label"].tolist() == [0, 0, 0]
    assert image_folder("train.zip", size=4, batch=3).rows(0, 0, 3)["label"].tolist() == [0, 1, 2]


def test_a_class_folder_that_only_test_has_is_named(image_folders):
    (image_folders / "data" / "test" / "red").rename(image_folders / "data" / "test" / "crimson")
    with pytest.raises(ValueError, match=r"data/test: got a folder 'crimson'; expected .* blue, green, red"):
        train("colours.py", folder="run", mesh="data=1")


def test_a_report_names_the_classes_that_were_learned(image_folders):
    pytest.importorskip("plotly")
    train("colours.py", folder="run", mesh="data=1")
    for part in ("train", "test"):
        shutil.rmtree(f"data/{part}/blue")
    (image_folders / "data" / "train" / "blue").mkdir()  # so that it is no class any more
    path = report("run", evaluate=True)
    assert "blue" in path.read_text()


def test_half_of_the_rows_removed_changes_no_prediction(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text(rows(60))
    (tmp_path / "table.py").write_text(TABLE)
    (tmp_path / "it.txt").write_text("130,Celle")
    train("table.py", folder="run", mesh="data=1")
    before = said("run", "it.txt")
    lines = rows(60).splitlines(keepends=True)
    (tmp_path / "table.csv").write_text("".join([lines[0], *lines[31:]]))  # other mean, and Aachen is gone
    assert said("run", "it.txt") == before
    (tmp_path / "table.csv").unlink()
    assert said("run", "it.txt") == before
    x = np.arange(100, 160)
    scale = json.loads((tmp_path / "run" / "learned.json").read_text())["values"]["scale of x"]
    assert scale == {"mean": x.mean(), "deviation": x.std()}


def test_a_resumed_run_goes_on_with_what_it_has_learned_and_a_fresh_one_learns_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.py").write_text(TABLE)

    def learned():
        return json.loads((tmp_path / "run" / "learned.json").read_text())["values"]["towns"]

    (tmp_path / "table.csv").write_text(rows(60))
    train("table.py", folder="run", mesh="data=1")
    (tmp_path / "table.csv").write_text(rows(60).replace("Aachen", "Zwickau"))
    train("table.py", folder="run", mesh="data=1", force=True)
    assert learned() == ["Aachen", "Bonn", "Celle"]
    train("table.py", folder="run", mesh="data=1", fresh=True)
    assert learned() == ["Bonn", "Celle", "Zwickau"]


def test_damage_to_what_was_learned_is_said_before_anything_comes_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text(rows(60))
    (tmp_path / "table.py").write_text(TABLE)
    train("table.py", folder="run", mesh="data=1")
    path = tmp_path / "run" / "learned.json"
    path.write_text(path.read_text().replace("Aachen", "Bachen"))
    with pytest.raises(
        ValueError,
        match=r"learned\.json is damaged: its content has changed since it was written\. Copy it back",
    ):
        evaluate("run", mesh="data=1")
