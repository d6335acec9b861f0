"""Names of runs and files need no quoting, lead nowhere, and do not collide."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from files import swept

from jaxmodels import train
from jaxmodels.commands.predict import predictions
from jaxmodels.commands.sweep import sweep
from jaxmodels.inference.model import Model
from jaxmodels.interfaces import Predictor
from jaxmodels.runs.definition import RunDefinition
from jaxmodels.runs.folder import Folder
from jaxmodels.runs.names import of_knobs, safe_name

pytestmark = pytest.mark.fast

ODD = [
    "a b",
    "ab",
    "a_b",
    "a/b",
    "../b",
    "..",
    ".",
    "",
    "-x",
    "~",
    "l=[1,2]",
    "$HOME",
    "`ls`",
    "a;b",
    "a\nb",
    "日本",
    "x" * 999,
]
ODD += [
    "a*",
    "a?",
    "a'b",
    'a"b',
    "a\\b",
    "a&b",
    "a{b,c}",
    "\x00",
    "\udcff",
    "C:x",
    "#a",
    "!a",
    "(a)",
    " a",
    "a ",
]


def test_any_text_becomes_a_name_that_a_shell_takes_as_it_is_and_no_two_share_one():
    names = {text: safe_name(text) for text in ODD}
    assert len({name.lower() for name in names.values()}) == len(ODD)
    for name in names.values():
        assert (
            shlex.quote(name) == name and Path(name).name == name and name[0] not in "-.~" and len(name) < 140
        )


@pytest.mark.parametrize("text", ["gpt_python", "lr=0.001", "member-1,2", "a.b_c+d@e%f"])
def test_a_name_that_is_safe_stays(text):
    assert safe_name(text) == text


def test_knobs_that_differ_have_names_that_differ():
    pairs = [
        ({"act": "a b"}, {"act": "ab"}),
        ({"act": "a/b"}, {"act": "a_b"}),
        ({"act": "x-lr=1"}, {"act": "x", "lr": 1}),
        ({"act": "x=1"}, {"act": "x_1"}),
        ({"layers": (1, 2)}, {"layers": (12,)}),
        ({"act": "x" * 300}, {"act": "x" * 301}),
    ]
    for one, other in pairs:
        assert of_knobs(one) != of_knobs(other)
    assert of_knobs({"lr": 0.1, "layers": [1, 2], "clip": None}) == "lr=0.1-layers=1,2-clip=None"


@pytest.mark.slow
def test_the_default_folder_of_a_list_knob_can_be_trained_in(tmp_path, monkeypatch, capsys):
    """Its name was runs/knobs-l=[1,2], which left checkpoints that nothing could read."""
    from jaxmodels import cli

    monkeypatch.chdir(tmp_path)
    source = Path(swept.__file__).parent.joinpath("bare_jax.py").read_text()
    knob = "    seed: int = 0\n    l: tuple[int, ...] = (3,)\n    act: str = 'relu'\n"
    Path("knobs.py").write_text(source.replace("    seed: int = 0\n", knob, 1))
    assert cli.main(["train", "knobs.py", "--l", "1", "2", "--act", "a b", "--mesh", "data=1"]) == 0
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    [folder] = Path("runs").iterdir()
    assert folder.name.startswith("knobs-l=1,2-act=a_b-")
    evaluate = next(line.removeprefix("evaluate ") for line in said if line.startswith("evaluate"))
    go_on = next(line.partition("go on    ")[2] for line in said if line.startswith("go on"))
    assert shlex.split(go_on) == [
        "jaxmodels",
        "train",
        "knobs.py",
        "--l",
        "1",
        "2",
        "--act",
        "a b",
        "--mesh",
        "data=1",
    ]
    assert cli.main([*shlex.split(evaluate)[1:], "--mesh", "data=1"]) == 0


@pytest.mark.parametrize("name", ["a[1]", "a*b"])
def test_a_folder_whose_checkpoints_could_not_be_read_is_refused_before_training(tmp_path, name, capsys):
    from jaxmodels import cli

    bare = str(Path(swept.__file__).parent / "bare_jax.py")
    for words in (["train", bare], ["sweep", str(swept.__file__), "--lr", "0.1,0.2"]):
        assert cli.main([*words, "--folder", str(tmp_path / name / "run")]) == 2
        err = capsys.readouterr().err
        assert "got a path with" in err and "Choose another --folder" in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_working_directory_that_cannot_be_used_is_refused_too(tmp_path, monkeypatch):
    (tmp_path / "[proj]").mkdir()
    monkeypatch.chdir(tmp_path / "[proj]")
    with pytest.raises(ValueError, match=r"\[proj\].*could not be read again"):
        train(str(Path(swept.__file__).parent / "bare_jax.py"), mesh="data=1")


def test_images_of_evaluations_and_predictions_stay_in_their_folder(tmp_path):
    folder = Folder(tmp_path / "run", keep=1)
    folder.open(RunDefinition("", {}, {}))
    pixels = np.zeros((2, 2, 1), np.uint8)
    for name in ("../out", "a/b", "test-x", "..", "/etc/passwd"):
        folder.write_picture(name, pixels)
    folder.close()
    names = sorted(path.name for path in (tmp_path / "run" / "pictures").iterdir())
    assert len(names) == 5 and "test-x.png" in names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]

    predictor = Predictor(
        read=lambda file: {"x": np.zeros(1, np.float32)},
        predict=lambda params, extra, batch: batch["x"],
        report=lambda got: {"label": "good"},
        draw=lambda file, got: pixels,
        input="text",
    )
    sentences = ["Fine. Really/../.. fine.", "Fine. Really/../.. bad.", "x" * 5000, "../../up"]
    said = [*predictions(Model(tmp_path, {}, {}, predictor), texts=sentences, out=tmp_path / "said")]
    assert len({one.picture for one in said}) == 4
    assert len(list((tmp_path / "said").iterdir())) == 4


@pytest.mark.slow
def test_members_of_a_sweep_have_names_without_brackets(tmp_path):
    table = sweep(swept.__file__, folder=tmp_path / "sweep", lr=[0.1, 0.3], steps=2)
    assert {member["name"] for member in table["members"]} == {"lr=0.1", "lr=0.3"}
