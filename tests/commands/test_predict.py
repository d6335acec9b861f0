"""`jaxmodels predict`: what a run's model predicts for images, as text, as JSON and as drawings."""

from __future__ import annotations

import json

import numpy as np
import pytest
from files import tiny_mlp, tiny_pictures

from jaxmodels import cli, predict, train

Image = pytest.importorskip("PIL.Image", reason="needs pillow")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run, and two images larger than what it was trained on."""
    folder = tmp_path_factory.mktemp("pictures")
    train(tiny_pictures.__file__, folder=str(folder / "run"), mesh="data=1")
    for name, grey in (("dark", 20), ("light", 230)):
        Image.fromarray(np.full((40, 60, 3), grey, np.uint8)).save(folder / f"{name}.png")
    return folder


def test_each_file_gets_its_class_a_probability_and_a_drawing(run):
    said = predict(run / "run", [run / "dark.png", run / "light.png"], mesh="data=1")
    assert [one["class"] for one in said] == ["dark", "light"]
    for one in said:
        assert 0.5 < one["probability"] == one["likeliest"][one["class"]] <= 1
        with Image.open(one["picture"]) as drawn:
            assert (
                drawn.mode == "RGB" and drawn.width >= 60 and drawn.height > 40
            )  # the image, and a line of text
    assert [one["picture"] for one in said] == [
        str(run / "run" / "predictions" / f"{n}.png") for n in ("dark", "light")
    ]


def test_the_command_prints_what_it_found_and_json_where_asked(run, capsys):
    files = [str(run / "light.png")]
    assert cli.main(["predict", str(run / "run"), *files, "--out", str(run / "out"), "--mesh", "data=1"]) == 0
    out = capsys.readouterr().out
    assert "class        light" in out and "%" in out and str(run / "out" / "light.png") in out
    assert cli.main(["predict", str(run / "run"), *files, "--mesh", "data=1", "--json"]) == 0
    [one] = map(json.loads, capsys.readouterr().out.splitlines())
    assert (one["file"], one["class"]) == (files[0], "light")


@pytest.mark.parametrize(
    ("words", "said", "expected"),
    [
        (["RUN"], "got no inputs; expected image files", 2),
        (["RUN", "--text", "hello"], "got texts; expected image files", 2),
        (["RUN", "nowhere.png"], "there is no file nowhere.png", 1),
        (["RUN", "broken.png"], "broken.png", 1),
        (["RUN", "empty"], "empty: got a folder without a file that ends in .jpg", 2),
        (["RUN", "light.png", "-o", "out.json"], "expected .csv .tsv .jsonl .parquet for a table", 2),
    ],
    ids=["no file", "a text", "absent", "no image", "empty folder", "no table"],
)
def test_bad_input_is_answered_in_one_message(run, words, said, expected, capsys, monkeypatch):
    monkeypatch.chdir(run)
    (run / "broken.png").write_bytes(b"no image")
    (run / "empty").mkdir(exist_ok=True)
    words = [str(run / "run") if word == "RUN" else word for word in words]
    assert cli.main(["predict", *words, "--mesh", "data=1"]) == expected
    out, err = capsys.readouterr()
    assert said in err and "Traceback" not in out + err


def test_a_broken_file_is_named_and_the_others_of_its_folder_are_answered(run, capsys, monkeypatch):
    monkeypatch.chdir(run)
    for name in ("a", "b"):
        (run / "both" / name).mkdir(parents=True)
        (run / "both" / name / "x.png").write_bytes((run / "light.png").read_bytes())
    (run / "both" / "b" / "y.png").write_bytes(b"no image")
    command = ["predict", str(run / "run"), "both", "--mesh", "data=1"]
    assert cli.main([*command, "--json", "--out", "drawn"]) == 1
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["file"] for line in lines] == ["both/a/x.png", "both/b/x.png", "both/b/y.png"]
    assert [line.get("class") for line in lines] == ["light", "light", None]
    assert "both/b/y.png" in lines[2]["error"] and "both/b/y.png" in err
    assert len({line["picture"] for line in lines[:2]}) == len(list((run / "drawn").iterdir())) == 2

    assert cli.main([*command, "-o", "told.csv"]) == 1
    told = (run / "told.csv").read_text().splitlines()
    assert told[0] == "file,class,probability,likeliest,error" and told[1].startswith("both/a/x.png,light,")
    assert len(told) == 4 and "told.csv: 3 rows, 1 of them with an error" in capsys.readouterr().out


def test_a_model_that_reads_no_files_says_so(tmp_path, capsys):
    train(tiny_mlp.__file__, folder=str(tmp_path / "run"), mesh="data=1", steps=4)
    assert cli.main(["predict", str(tmp_path / "run"), "x.png", "--mesh", "data=1"]) == 2
    assert "got an experiment whose build() gives no predictor" in capsys.readouterr().err
