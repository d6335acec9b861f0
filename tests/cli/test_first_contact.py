"""What newcomers met: a start that failed, a model of their own, a run of an object, numbers of tables."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import flax.linen as nn
import numpy as np
import pytest
from files import tiny_mlp
from listening import Listening

from jaxmodels import Experiment, Options, cli, open_run, optim, train
from jaxmodels.data.formats.tables import read_csv
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.mlp import MLP
from jaxmodels.runs.definition import RunDefinition
from jaxmodels.runs.folder import Folder, has_begun
from jaxmodels.tasks.classify import classify
from jaxmodels.training import runner

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1700000000.25", "1710000000.75"], np.float64),  # times in seconds, over months
        (["19700.123456", "19730.654321"], np.float64),  # in days
        (["86399.123456", "1.5"], np.float64),
        (["0.1", "-122.23", "1e-3"], np.float32),
        (["3.141593", "2.5"], np.float32),
        (["3.14159265358979", "2.5"], np.float64),
        (["9999999.0", "0.5"], np.float32),
    ],
)
def test_a_tables_numbers_keep_every_digit_that_is_written(tmp_path, texts, kind):
    (tmp_path / "t.csv").write_text("x\n" + "\n".join(texts) + "\n")
    x = read_csv(tmp_path / "t.csv")["x"]
    assert x.dtype == kind
    assert [float(f"{v:.7g}") if kind == np.float32 else float(v) for v in x] == [
        float(text) for text in texts
    ]


def test_a_start_that_came_to_nothing_does_not_bind_the_next_one(tmp_path):
    for lr in (0.1, 0.2):
        folder = Folder(tmp_path, keep=2)
        assert not folder.open(RunDefinition("", {"lr": lr}, {}))
        folder.write_learned({"scale": lr})
        folder.close()
        assert not has_begun(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    folder = Folder(tmp_path, keep=2)
    with pytest.raises(ValueError, match=r"lr: 0\.2 there, 0\.3 here"):
        folder.open(RunDefinition("", {"lr": 0.3}, {}))
    folder.close()


def test_what_a_refused_start_has_learned_is_forgotten(tmp_path):
    folder = Folder(tmp_path, keep=2)
    folder.open(RunDefinition("", {}, {}))
    folder.write_learned({"scale": 1})
    folder.close()
    folder = Folder(tmp_path, keep=2)
    folder.open(RunDefinition("", {}, {}))
    folder.close()
    assert not (tmp_path / "learned.json").exists()


class Alone(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x)


class Trains(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = True):
        return nn.Dropout(0.5, deterministic=not train)(nn.Dense(2)(x))


@pytest.mark.parametrize(
    ("model", "hint"),
    [(Alone(), r"from_linen\(Alone\(\.\.\.\)\)"), (Trains(), r"from_linen\(Trains.*train='train'\)")],
)
def test_a_linen_model_without_the_adapter_is_told_of_it(model, hint):
    with pytest.raises(ValueError, match=hint):
        classify(model, inputs="x")


def digits(bad: bool) -> ArrayPipeline:
    x = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    if bad:
        x[5, 1] = np.nan
    return ArrayPipeline({"image": x, "label": (x[:, 0] > 0).astype(np.int32)}, batch=8)


def made(bad: bool = False) -> Experiment:
    task = classify(MLP(hidden=(4,), outputs=2))
    return Experiment(
        task=task, optimizer=optim.sgd(0.1), train=digits(False), evals={"test": digits(bad)}, steps=2
    )


@pytest.mark.slow
def test_a_nan_in_evaluation_data_is_named():
    console = Listening()
    runner.run(made(bad=True), Options(mesh="data=1"), console=console)
    assert [
        text
        for text in console.said
        if "test/loss: not finite. batch 0" in text and "row 5 (example 5)" in text
    ]
    console = Listening()
    runner.run(made(), Options(mesh="data=1"), console=console)
    assert not console.said


@pytest.mark.slow
def test_a_run_of_an_object_says_that_it_has_no_file(tmp_path):
    train(made(), folder=str(tmp_path / "run"), mesh="data=1")
    with pytest.raises(ValueError, match="got a run of an Experiment object"):
        open_run(tmp_path / "run")


def test_an_option_that_is_misspelt_for_an_object_is_named():
    with pytest.raises(ValueError, match="Write folder="):
        train(made(), foldr="x")


def test_an_absent_folder_is_said_to_be_absent(tmp_path, capsys):
    assert cli.main(["evaluate", str(tmp_path / "nowhere")]) == 2
    assert "got no such folder" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals are those of POSIX")
def test_ctrl_c_before_the_first_step_ends_with_130(tmp_path):
    words = [
        sys.executable,
        "-P",
        "-m",
        "jaxmodels",
        "train",
        tiny_mlp.__file__,
        "--folder",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while (
        not (tmp_path / "run" / "run.json").exists() and time.monotonic() < until and process.poll() is None
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130, said
    assert "Traceback" not in said
