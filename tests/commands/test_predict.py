"""`jaxmodels predict`: what a run's model says of pictures, as text, as JSON and as drawings."""

from __future__ import annotations

import json

import numpy as np
import pytest
from files import tiny_mlp, tiny_pictures

from jaxmodels import cli, predict, train

Image = pytest.importorskip("PIL.Image", reason="needs pillow")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run, and two pictures larger than what it was trained on."""
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
            )  # the picture, and a line of text
    assert [one["picture"] for one in said] == [
        str(run / "run" / "predictions" / f"{n}.png") for n in ("dark", "light")
    ]


def test_the_command_prints_what_it_found_and_json_where_asked(run, capsys):
    files = [str(run / "light.png")]
    assert cli.main(["predict", str(run / "run"), *files, "--out", str(run / "out"), "--mesh", "data=1"]) == 0
    out = capsys.readouterr().out
    assert "class        light" in out and "%" in out and str(run / "out" / "light.png") in out
    assert cli.main(["predict", str(run / "run"), *files, "--mesh", "data=1", "--json"]) == 0
    [one] = json.loads(capsys.readouterr().out)["predictions"]
    assert (one["file"], one["class"]) == (files[0], "light")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["RUN"], "jaxmodels predict RUN needs FILES first"),
        (["RUN", "nowhere.png"], "nowhere.png"),
        (["RUN", "a/x.png", "b/x.jpg"], "got two files called x"),
        (["RUN", "broken.png"], "broken.png"),
    ],
    ids=["no file", "absent", "same name", "no picture"],
)
def test_bad_input_is_answered_in_one_message(run, words, said, capsys, monkeypatch):
    monkeypatch.chdir(run)
    (run / "broken.png").write_bytes(b"no picture")
    try:
        status = cli.main(
            ["predict", *(str(run / "run") if word == "RUN" else word for word in words), "--mesh", "data=1"]
        )
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    assert status in (1, 2) and said in err and "Traceback" not in out + err


def test_a_model_that_reads_no_files_says_so(tmp_path, capsys):
    train(tiny_mlp.__file__, folder=str(tmp_path / "run"), mesh="data=1", steps=4)
    assert cli.main(["predict", str(tmp_path / "run"), "x.png", "--mesh", "data=1"]) == 2
    assert "got an experiment whose build() gives no predictor" in capsys.readouterr().err
