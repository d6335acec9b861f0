"""experiments/text_csv.py on a stranger's file: trained in one command, used without it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import jaxmodels
from jaxmodels import cli

FILE = str(Path(__file__).parents[2] / "experiments" / "text_csv.py")
WORDS = {"good": ("lovely", "great"), "bad": ("dull", "sad")}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, without the table that it was trained on."""
    folder, random = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    with (folder / "reviews.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "stars"])
        for stars in random.choice(["good", "bad"], 200).tolist():
            writer.writerow([f"a {random.choice(WORDS[stars])} film, {random.integers(9)} of us said", stars])
    words = ["--file", str(folder / "reviews.csv"), "--text", "review", "--label", "stars", "--quiet"]
    words += ["--epochs", "6", "--batch", "16", "--lengths", "8", "--lr", "0.01", "--mesh", "data=1"]
    assert cli.main(["train", FILE, *words, "--folder", str(folder / "run")]) == 0
    (folder / "reviews.csv").unlink()
    return folder / "run"


def test_texts_are_classified_by_a_run_whose_table_is_gone(run):
    answers = jaxmodels.load(run, mesh="data=1")(["A lovely film", "dull", "Sad, sad, sad", ""])
    assert [answer.values.get("class") for answer in answers] == ["good", "bad", "bad", None]
    assert "got a text without a token" in answers[3].error or "empty" in answers[3].error


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path, capsys):
    (tmp_path / "x.csv").write_text("review,stars\nfine,1\n")
    assert (
        cli.main(["train", FILE, "--file", str(tmp_path / "x.csv"), "--folder", str(tmp_path / "run")]) == 2
    )
    err = capsys.readouterr().err
    assert "got no column 'text'; expected one of review, stars" in err and "Traceback" not in err
