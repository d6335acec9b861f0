"""experiments/tabular_csv.py on a stranger's file: trained in one command, used without it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import jaxmodels
from jaxmodels import cli

pytest.importorskip("sklearn", reason="needs scikit-learn")

FILE = str(Path(__file__).parents[2] / "experiments" / "tabular_csv.py")
COLUMNS = ("id", "size", "town", "note", "empty", "kind", "price")


def rows(count=240):
    random = np.random.default_rng(0)
    for i in range(count):
        size, town = float(random.normal(50, 10)), ("Bonn", "Celle, Nord", 'the "old" one')[i % 3]
        price = 10 * size + 300 * (i % 3) + float(random.normal(0, 1))
        kind = "large" if size > 50 else "small"
        yield i + 10**9, "" if i % 50 == 7 else round(size, 2), town, f"note {i}", "", kind, round(price, 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of two runs, without the table that they were trained on, and what training said."""
    folder = tmp_path_factory.mktemp("tables")
    with (folder / "flats.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows()])
    for target, ignored in (("price", "kind"), ("kind", "price")):
        words = ["--file", str(folder / "flats.csv"), "--target", target, "--ignore", ignored]
        words += ["--epochs", "20", "--batch", "32", "--hidden", "16", "--lr", "0.02", "--mesh", "data=1"]
        assert cli.main(["train", FILE, *words, "--folder", str(folder / "there" / target), "--quiet"]) == 0
    (folder / "flats.csv").unlink()
    shutil.move(folder / "there", folder / "here")
    return folder / "here"


def test_a_regressor_learns_and_has_trees_beside_it(runs):
    result = json.loads((runs / "price" / "result.json").read_text())
    assert result["metrics"]["test/rmse"] < 0.35 * np.std([row[-1] for row in rows()])
    assert 0 < result["baselines"]["gradient-boosted trees"]["test/rmse"] < 100


def test_a_classifier_learns_and_has_trees_beside_it(runs):
    result = json.loads((runs / "kind" / "result.json").read_text())
    assert result["metrics"]["test/accuracy"] > 0.85
    assert result["baselines"]["gradient-boosted trees"]["test/accuracy"] > 0.85


def test_a_moved_run_answers_rows_without_its_training_data(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("new.csv").write_text('town,size\nBonn,60\nMars,60\nBonn,big\nBonn,\n"Celle, Nord",40\n')
    assert cli.main(["predict", str(runs / "price"), "new.csv", "-o", "out.csv", "--mesh", "data=1"]) == 1
    said = capsys.readouterr().err
    assert "new.csv, row 2: got 'Mars' for town; expected one of the 3 categories of training" in said
    assert "new.csv, row 3: got 'big' for size; expected a finite number" in said
    with open("out.csv", newline="") as file:
        out = [*csv.DictReader(file)]
    assert [*out[0]] == ["town", "size", "price", "error"]
    assert [bool(row["price"]) for row in out] == [True, False, False, True, True]
    assert abs(float(out[0]["price"]) - 600) < 150 and abs(float(out[4]["price"]) - 700) < 150


def test_the_loaded_model_gives_what_the_command_gives(runs, tmp_path, capsys):
    path = tmp_path / "new.csv"
    path.write_text("town,size,extra\nBonn,60,1\nBonn,40,2\n")
    assert cli.main(["predict", str(runs / "kind"), str(path), "--json", "--mesh", "data=1"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    model = jaxmodels.load(runs / "kind", mesh="data=1")
    answers = model([{"town": "Bonn", "size": 60}, {"town": "Bonn", "size": 40.0}])
    assert [{"file": str(path), "row": n, **x.values} for n, x in enumerate(answers, 1)] == printed
    assert [answer.values["class"] for answer in answers] == ["large", "small"]
    assert model.require_predictor().fields == ("size", "town")
    assert "got a row without 'size'" in model([{"town": "Bonn"}])[0].error


@pytest.mark.parametrize("model", ["resnet", "ft_transformer"])
def test_other_models_read_the_same_columns(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with open("flats.csv", "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows(120)])
    words = ["--file", "flats.csv", "--target", "price", "--ignore", "kind", "--model", model, "--width", "8"]
    words += ["--depth", "1", "--epochs", "8", "--batch", "16", "--lr", "0.03", "--mesh", "data=1"]
    assert cli.main(["train", FILE, *words, "--folder", "run", "--quiet"]) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert result["metrics"]["test/rmse"] < 0.6 * np.std([row[-1] for row in rows()])
    model = jaxmodels.load("run", mesh="data=1")
    lacking, there = model([{"town": "Bonn", "size": None}, {"town": "Bonn", "size": 40}])
    assert not lacking.error and not there.error and lacking.values != there.values
