"""Baselines stand beside a result, and cannot cost it."""

from __future__ import annotations

import dataclasses
import json

from files import tiny_mlp

from jaxmodels import cli, train


def test_a_result_stands_without_baselines_that_fail(tmp_path, capsys):
    def fail():
        raise ModuleNotFoundError("No module named 'sklearn'")

    experiment = dataclasses.replace(tiny_mlp.build(tiny_mlp.Config(steps=4)), baselines=fail)
    result = train(experiment, folder=str(tmp_path / "run"), mesh="data=1")
    assert result.summary["baselines"] == {} and result.summary["exit"] == "complete"
    assert json.loads((tmp_path / "run" / "result.json").read_text())["exit"] == "complete"
    err = capsys.readouterr().err
    assert "the baselines failed (ModuleNotFoundError: No module named 'sklearn')" in err


FILE = """
import dataclasses
from files import tiny_mlp
from files.tiny_mlp import Config

def build(config):
    experiment = tiny_mlp.build(config)
    return dataclasses.replace(experiment, best=("test/loss", max), eval_every=2, checkpoint_every=2)
"""


def test_the_end_says_which_checkpoint_the_next_commands_take(tmp_path, capsys):
    """The best evaluation is here the one of the greatest loss, which training leaves behind."""
    (tmp_path / "worst.py").write_text(FILE)
    words = ["--steps", "40", "--folder", str(tmp_path / "run"), "--mesh", "data=1"]
    assert cli.main(["train", str(tmp_path / "worst.py"), *words]) == 0
    out = capsys.readouterr().out
    assert "The commands below take the checkpoint of step" in out and "--step takes another" in out
