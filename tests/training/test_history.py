"""What train() gives and shows of a run's course: its history, and lines or a bar where a console was asked
for.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from files import bare_jax

from jaxmodels import Console, Evaluation, train
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.training import runner

pytestmark = pytest.mark.fast
FILE = Path(bare_jax.__file__)


@pytest.mark.slow
def test_history_is_metrics_jsonl_also_after_a_resume(tmp_path):
    options = {"folder": str(tmp_path), "mesh": "data=1", "eval_every": 4, "save_every": 3, "log_every": 2}
    with pytest.raises(runner.Interrupted):
        train(FILE, **options, stop_at=5)
    result = train(FILE, **options)
    assert result.history == [
        json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in result.history if "train/loss" in line] == [2, 4, 6, 8, 10]
    assert [line["step"] for line in result.history if "test/loss" in line] == [4, 8, 10]
    assert train(FILE, **options).history == result.history  # complete: nothing is added


@pytest.mark.slow
def test_a_run_without_a_folder_has_its_history(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = train(bare_jax.build(bare_jax.Config(eval_every=5)), mesh="data=1")
    assert [line["step"] for line in result.history] == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 10]
    assert {name: x for name, x in result.history[-1].items() if name != "step"} == result.metrics
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_value_that_is_not_finite_is_none_as_in_the_file(tmp_path):
    data = ArrayPipeline(bare_jax.arrays(13), batch=8)
    odd = Evaluation(
        data, predict=lambda params, extra, batch: batch["y"], score=lambda *_: {"odd": float("nan")}
    )
    experiment = dataclasses.replace(bare_jax.build(bare_jax.Config(steps=2)), evals={"test": odd})
    assert train(experiment, folder=str(tmp_path), mesh="data=1").history[-1]["test/odd"] is None


@pytest.mark.slow
def test_a_redirected_run_prints_a_line_at_each_log_interval(capsys):
    train(bare_jax.build(bare_jax.Config(log_every=3)), console=Console(), mesh="data=1")
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in shown] == ["3/10", "6/10", "9/10", "10/10"]
    assert all("loss" in line for line in shown) and "examples/s" in shown[-1]


@pytest.mark.slow
def test_nothing_is_printed_where_nobody_asked(capsys):
    train(bare_jax.build(bare_jax.Config()), mesh="data=1")
    assert capsys.readouterr() == ("", "")
