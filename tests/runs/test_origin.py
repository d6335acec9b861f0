"""A folder from elsewhere runs no code unless it is a run's and nothing else."""

from __future__ import annotations

import json
import os

import pytest

import jaxmodels
from jaxmodels import cli
from jaxmodels.commands.report import report
from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.save import convert
from jaxmodels.runs.origin import check_run, is_weights
from jaxmodels.sweeps.extract import extract_member

pytestmark = pytest.mark.fast


@pytest.fixture
def both(tmp_path):
    """A folder of weights to which somebody has added a run's files; its code would leave a file RAN."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (folder / "knobs.json").write_text(json.dumps({"knobs": {}, "options": {"precision": "float32"}}))
    (folder / "experiment.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w')\n")
    yield folder
    assert not (tmp_path / "RAN").exists()


BOTH = (
    "got a folder with knobs.json of a run and config.json of a model from elsewhere; expected one of the two"
)


@pytest.mark.parametrize(
    "use",
    [
        lambda folder: jaxmodels.generate(folder, prompt="x"),
        lambda folder: jaxmodels.evaluate(folder),
        lambda folder: jaxmodels.evaluate(folder, texts=[folder / "knobs.json"]),
        lambda folder: jaxmodels.predict(folder, [folder / "knobs.json"]),
        lambda folder: report(folder),
        lambda folder: jaxmodels.open_run(folder),
    ],
)
def test_a_folder_that_looks_like_a_run_and_like_weights_is_refused_and_not_run(both, use):
    with pytest.raises(ValueError, match=BOTH):
        use(both)


@pytest.mark.parametrize("command", ["generate", "evaluate", "predict", "report"])
def test_the_commands_refuse_it_in_one_message(both, command, capsys):
    assert cli.main([command, str(both), *["x.png"] * (command == "predict")]) == 2
    assert BOTH in capsys.readouterr().err


@pytest.mark.parametrize("use", [load_pretrained, lambda folder: convert(folder, folder.parent / "out")])
def test_what_reads_weights_runs_nothing(both, use):
    with pytest.raises((ValueError, OSError, KeyError)):  # there are no tensors
        use(both)


@pytest.mark.parametrize(
    "weights", ["model.safetensors", "pytorch_model.bin", "x-00001-of-00002.safetensors"]
)
@pytest.mark.parametrize("run", ["knobs.json", "experiment.py"])
def test_any_mark_of_a_run_beside_any_weights_is_refused(tmp_path, run, weights):
    (tmp_path / weights).write_bytes(b"")
    assert is_weights(tmp_path) is True
    (tmp_path / run).symlink_to("nowhere")
    with pytest.raises(ValueError, match=f"with {run} of a run and {weights}"):
        is_weights(tmp_path)


def test_an_experiment_that_is_a_link_is_not_run(both):
    (both / "config.json").unlink()
    (both / "experiment.py").rename(both.parent / "elsewhere.py")
    (both / "experiment.py").symlink_to(both.parent / "elsewhere.py")
    for use in (
        jaxmodels.open_run,
        report,
        lambda folder: (folder / "members" / "a").mkdir(parents=True) or extract_member(folder, "a", "x"),
    ):
        with pytest.raises(ValueError, match=r"experiment\.py: got a link; expected the regular file"):
            use(both)


@pytest.mark.parametrize("name", ["code", "code/net.py", "code/deep", "code/deep/net.py", "helper.py"])
def test_a_link_among_the_modules_of_a_run_is_refused(tmp_path, name):
    run, outside = tmp_path / "run", tmp_path / "outside"
    (run / "code" / "deep").mkdir(parents=True)
    (run / "knobs.json").write_text("{}")
    (outside / "deep").mkdir(parents=True)
    for file in ("experiment.py", "helper.py", "code/net.py", "code/deep/net.py"):
        (run / file).write_text("")
        (outside / "net.py").write_text("")
    check_run(run, print)
    (run / name).rename(tmp_path / "away")
    (run / name).symlink_to(outside / "net.py" if name.endswith(".py") else outside)
    with pytest.raises(ValueError, match=f"{name}: got a link"):
        check_run(run, print)


@pytest.mark.parametrize("name", [".", "experiment.py", "helper.py"])
@pytest.mark.parametrize("why", ["writable", "owned"])
def test_code_that_somebody_else_could_have_written_is_warned_of_once(tmp_path, monkeypatch, name, why):
    for file in ("knobs.json", "experiment.py", "helper.py"):
        (tmp_path / file).write_text("")
    os.chmod(tmp_path, 0o700)
    said = []
    assert check_run(tmp_path, said.append) == tmp_path
    assert not said
    if why == "writable":
        os.chmod(tmp_path / name, 0o777)
    elif os.geteuid() == 0:
        os.chown(tmp_path / name, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    check_run(tmp_path, said.append)
    check_run(tmp_path, said.append)
    [text] = said
    assert ("can be written by every user" if why == "writable" else "belongs to another user") in text
    assert "experiment.py is executed" in text


@pytest.mark.parametrize("command", ["evaluate", "predict", "generate", "report"])
def test_the_help_of_what_takes_a_run_says_that_it_is_code(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "A run's folder is code: its experiment.py is executed" in said


def test_the_package_shows_its_public_names():
    assert {"train", "evaluate", "open_run", "Experiment", "__version__"} <= {*dir(jaxmodels)}
    assert all(hasattr(jaxmodels, name) for name in jaxmodels.__all__)
