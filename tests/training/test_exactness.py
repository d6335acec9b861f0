"""What a resumed run's bits depend on is where it is verified; all else may be lost or changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from files import bare_jax, tiny_mlp
from states import same_bits

import jaxmodels
from jaxmodels import Options, cli
from jaxmodels.console import Console
from jaxmodels.runs import identity
from jaxmodels.runs.definition import RunDefinition
from jaxmodels.runs.folder import Folder
from jaxmodels.training import runner

pytestmark = pytest.mark.fast

MLP = tiny_mlp.__file__
STEPS = 9


def run(folder: Path, **options) -> runner.Result:
    experiment = bare_jax.build(bare_jax.Config(steps=STEPS, save_every=4))
    opened = Folder(folder, keep=2)
    try:
        opened.open(RunDefinition("", {}, {}))
        return runner.run(
            experiment, Options(mesh="data=1", **options), folder=opened, console=Console(quiet=True)
        )
    finally:
        opened.close()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> tuple[Path, runner.Result]:
    """A run of three steps in a dispatch that was stopped on its way, and the whole of it."""
    folder = tmp_path_factory.mktemp("exact")
    whole = run(folder / "whole", steps_per_dispatch=3, checkpoint_every=2)
    with pytest.raises(runner.Interrupted):
        run(folder / "stopped", steps_per_dispatch=3, checkpoint_every=2, stop_at=5)
    return folder / "stopped", whole


@pytest.mark.slow
def test_no_change_or_loss_of_the_environment_changes_a_bit(stopped, tmp_path):
    original, whole = stopped
    said = (original / "environment.json").read_text()
    assert '"steps_per_dispatch": 3' in said
    changes = {
        "a digit": said.replace('"steps_per_dispatch": 3', '"steps_per_dispatch": 2'),
        "no JSON": said[1:],
        "lost": None,
    }
    changes["other"] = (
        '{"steps_per_dispatch": 1, "checkpoint_every": 1, "options": {"precision": "bfloat16"}}'
    )
    for kind, text in changes.items():
        folder = Path(shutil.copytree(original, tmp_path / kind))
        (folder / "environment.json").unlink()
        if text is not None:
            (folder / "environment.json").write_text(text)
        resumed = run(folder)
        same_bits(resumed.state, whole.state)
        assert resumed.summary["steps_per_dispatch"] == 3, kind


@pytest.mark.slow
def test_nothing_reads_the_environment_to_train(stopped, tmp_path, monkeypatch):
    """So no byte of it, of whatever class, can change a bit."""
    folder, read = Path(shutil.copytree(stopped[0], tmp_path / "run")), Path.open
    opened: list[tuple] = []
    monkeypatch.setattr(
        "os.open", lambda path, *how, real=os.open, **more: opened.append((path,)) or real(path, *how, **more)
    )
    monkeypatch.setattr(
        Path, "open", lambda path, *how, **more: opened.append((path,)) or read(path, *how, **more)
    )
    run(folder)
    names = {Path(os.fsdecode(path)).name for (path,) in opened if not isinstance(path, int)}
    assert "run.json" in names and "note.json" in names and "environment.json" not in names


@pytest.mark.slow
def test_what_decides_bits_is_in_the_note_of_each_checkpoint(stopped):
    folder, _ = stopped
    for note in (folder / "checkpoints").glob("*/note.json"):
        said = json.loads(note.read_text())
        assert (said["steps_per_dispatch"], said["checkpoint_every"]) == (3, 2)
        assert "note.json" in json.loads((note.parent / "manifest.json").read_text())


# Forced upon an old run


@pytest.fixture(scope="module")
def sgd(tmp_path_factory) -> Path:
    """A finished run of the tiny MLP with momentum; not to be changed."""
    folder = tmp_path_factory.mktemp("sgd") / "run"
    assert cli.main(["train", MLP, "--folder", str(folder), "--mesh", "data=1", "--quiet"]) == 0
    return folder


def with_adam(folder: Path) -> Path:
    path = folder / "with_adam.py"
    path.write_text(Path(MLP).read_text().replace("optim.sgd(rate, momentum=0.9)", "optim.adam(rate)"))
    return path


def main(capsys, *words) -> tuple[int, str, str]:
    status = cli.main([str(word) for word in words])
    return status, *capsys.readouterr()


@pytest.mark.slow
def test_what_is_forced_upon_a_run_and_does_not_fit_changes_nothing_and_it_can_still_be_evaluated(
    capsys, sgd, tmp_path
):
    folder = Path(shutil.copytree(sgd, tmp_path / "run"))
    wanted = main(capsys, "evaluate", folder, "--mesh", "data=1", "--json")
    before = {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"
    }
    for force in ([], ["--force"]):
        status, _, err = main(
            capsys, "train", with_adam(tmp_path), "--folder", folder, "--mesh", "data=1", *force
        )
        assert status == 2
    assert "does not fit the experiment: opt_state" in err
    after = {name: (folder / name).read_bytes() for name in before}
    del before["result.json"], after["result.json"]
    assert after == before
    assert main(capsys, "evaluate", folder, "--mesh", "data=1", "--json")[:2] == wanted[:2]


@pytest.mark.slow
def test_evaluation_does_not_need_the_state_of_the_optimizer(capsys, sgd, tmp_path):
    folder = Path(shutil.copytree(sgd, tmp_path / "run"))
    wanted = jaxmodels.evaluate(folder, mesh="data=1")
    contents = {
        "experiment.py": with_adam(tmp_path).read_bytes(),
        "knobs.json": (folder / "knobs.json").read_bytes(),
    }
    identity.write(folder, identity.read(folder), contents)
    assert jaxmodels.evaluate(folder, mesh="data=1") == wanted
    with pytest.raises(ValueError, match="does not fit the experiment: opt_state"):
        jaxmodels.open_run(folder, mesh="data=1")


@pytest.mark.slow
def test_fresh_starts_over_where_the_knobs_are_missing_and_without_it_the_message_leads_there(
    capsys, sgd, tmp_path
):
    folder = Path(shutil.copytree(sgd, tmp_path / "run"))
    (folder / "knobs.json").unlink()
    status, _, err = main(capsys, "train", MLP, "--folder", folder, "--mesh", "data=1")
    assert status == 2 and "knobs.json cannot be read" in err and "--fresh" in err and "elete" not in err
    assert main(capsys, "evaluate", folder, "--mesh", "data=1")[0] == 2
    status, out, _ = main(
        capsys, "train", MLP, "--folder", folder, "--mesh", "data=1", "--fresh", "--steps", "6"
    )
    assert status == 0 and "going on" not in out
    assert (tmp_path / "run.1" / "checkpoints" / "24").is_dir()


@pytest.mark.slow
def test_checkpoints_of_another_seeds_run_are_refused(capsys, sgd, tmp_path):
    folder, other = Path(shutil.copytree(sgd, tmp_path / "run")), tmp_path / "other"
    main(capsys, "train", MLP, "--folder", other, "--mesh", "data=1", "--seed", "1", "--quiet")
    shutil.rmtree(folder / "checkpoints")
    shutil.copytree(other / "checkpoints", folder / "checkpoints")
    for words in (
        ["train", MLP, "--folder", folder],
        ["train", MLP, "--folder", folder, "--force"],
        ["evaluate", folder],
    ):
        status, _, err = main(capsys, *words, "--mesh", "data=1")
        assert status == 2 and "was saved by another run" in err
