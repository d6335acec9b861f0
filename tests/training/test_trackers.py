"""Trackers of others: what they are given, and what they show after a resume."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from jaxmodels.training.trackers import tensorboard, tracker


def tensorboard_shows(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_files_read_back(tmp_path):
    write = tensorboard(tmp_path)
    for step in (1, 2):
        write(step, {"train/loss": 1 / step, "test/accuracy": 0.25 * step})
    assert tensorboard_shows(tmp_path) == {
        "train/loss": [(1, 1.0), (2, 0.5)],
        "test/accuracy": [(1, 0.25), (2, 0.5)],
    }


def test_tensorboard_shows_a_step_once_after_a_resume(tmp_path):
    before = tensorboard(tmp_path)
    for step in (1, 2, 3):
        before(step, {"loss": 1.0})
    after = tensorboard(tmp_path)
    for step in (2, 3, 4):
        after(step, {"loss": 0.5})
    assert tensorboard_shows(tmp_path) == {"loss": [(1, 1.0), (2, 0.5), (3, 0.5), (4, 0.5)]}


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_said_with_its_cure(name, tmp_path, monkeypatch):
    def absent(module):
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(
        ValueError, match=rf"--track {name}: {name} is not installed; pip install 'jaxmodels\[{name}\]'"
    ):
        tracker(name, tmp_path, "run", {})


def test_an_unknown_tracker_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(
        ValueError, match="--track comet: there is no such tracker; choose from tensorboard, wandb, mlflow"
    ):
        tracker("comet", tmp_path, "run", {})


def test_mlflow_goes_on_in_the_same_record_after_a_resume(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/server")
    for start in (1, 3):
        write = tracker("mlflow", tmp_path, "mlp-lr=0.1", {"lr": 0.1})
        for step in range(start, start + 2):
            write(step, {"loss": 1 / step, "perplexity": float("inf")})
        del write
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("jaxmodels").experiment_id])
    assert (run.info.run_name, run.info.status, run.data.params) == ("mlp-lr=0.1", "FINISHED", {"lr": "0.1"})
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(step, 1 / step) for step in (1, 2, 3, 4)]


def test_a_tracker_that_cannot_begin_is_said(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/server")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (tmp_path / "mlflow.id").write_text("0" * 32)
    with pytest.raises(
        ValueError, match=r"(?s)--track mlflow could not begin: .*mend its settings, or leave it out"
    ):
        tracker("mlflow", tmp_path, "run", {})


def test_wandb_goes_on_in_the_same_record_after_a_resume(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    ids = []
    for start in (1, 3):
        write = tracker("wandb", tmp_path, "mlp-lr=0.1", {"lr": 0.1})
        for step in range(start, start + 2):
            write(step, {"loss": 1 / step})
        run = wandb.run
        ids.append(run.id)
        shown = dict(run.summary)[
            "loss"
        ]  # of the last step but one: wandb sends a step's values when the next come
        assert (run.name, dict(run.config), shown) == ("mlp-lr=0.1", {"lr": 0.1}, 1 / start)
        wandb.finish()
    assert ids[0] == ids[1] and list(Path(tmp_path, "wandb").glob("offline-run-*"))
