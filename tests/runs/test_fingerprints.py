"""A run on other data is refused, and a metric on other data is not taken for the run's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from files import tiny_mlp

from jaxmodels import cli, evaluate, predict, train
from jaxmodels.console import Console
from jaxmodels.runs import identity

TEXT = (
    Path(tiny_mlp.__file__)
    .read_text()
    .replace("import numpy as np", "import os\n\nimport numpy as np")
    .replace(
        "np.tanh(features_NF[:, :2].sum(1))}",
        "float(os.environ.get(split, 1)) * np.tanh(features_NF[:, :2].sum(1))}",
    )
)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """An experiment whose targets are multiplied by $train and $test, in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.py").write_text(TEXT)
    return "table.py"


def go(file: str, **options):
    return train(file, folder="run", mesh="data=1", **options)


def rewrite(data) -> dict:
    """Changes what knobs.json says of the data, as if the run had written it; gives what it said."""
    path = Path("run/knobs.json")
    known = json.loads(path.read_text())
    old = known.pop("data", {})
    text = json.dumps({**known, "data": data} if data is not None else known)
    contents = {"knobs.json": text.encode(), "experiment.py": Path("run/experiment.py").read_bytes()}
    identity.write(Path("run"), identity.read(Path("run")), contents)
    return old


def warnings(run="run", **options) -> list[str]:
    said: list[str] = []
    console = Console(quiet=True)
    console.warn = said.append  # type: ignore[method-assign]
    evaluate(run, console=console, mesh="data=1", **options)
    return said


def test_all_targets_replaced_are_refused_on_resume_and_named(file, monkeypatch, capsys):
    cli.main(["train", file, "--folder", "run", "--mesh", "data=1", "--stop-at", "12"])
    monkeypatch.setenv("train", "-1")
    before = {p.name: p.read_bytes() for p in Path("run").iterdir() if p.is_file()}
    assert cli.main(["train", file, "--folder", "run", "--mesh", "data=1"]) == 2
    said = capsys.readouterr().err
    assert (
        "run holds another experiment:\n  the training data: its examples, or their order, are others" in said
    )
    assert "evaluation" not in said and "--force" in said and "Traceback" not in said
    assert {p.name: p.read_bytes() for p in Path("run").iterdir() if p.is_file()} == before
    assert cli.main(["train", file, "--folder", "run", "--mesh", "data=1", "--force"]) == 0
    assert go(file).summary["exit"] == "complete"  # what it was forced onto is now its data


def test_other_data_of_an_evaluation_is_refused_on_resume_and_warned_of_by_evaluate(file, monkeypatch):
    go(file)
    assert warnings() == []
    monkeypatch.setenv("test", "100")
    with pytest.raises(
        ValueError, match=r"another experiment:\n  the data of the evaluation 'test': its examples"
    ):
        go(file)
    [said] = warnings()
    assert (
        "run: the data of the evaluation 'test' is not what this run was trained and evaluated with" in said
    )


def test_a_command_that_does_not_read_the_data_looks_at_it_only_where_that_takes_no_time(file, monkeypatch):
    go(file)
    monkeypatch.setenv("train", "-1")
    assert len(warnings()) == 1
    known = rewrite(None)
    rewrite({**known, "train": {**known["train"], "seconds": 30}})
    assert warnings() == []
    with pytest.raises(ValueError, match="the training data"):
        go(file)
    with pytest.raises(ValueError, match="gives no predictor"):
        predict("run", ["x.png"], mesh="data=1", warn=lambda text: pytest.fail(text))


def test_a_run_of_before_goes_on_without_a_complaint_and_then_knows_its_data(file, monkeypatch):
    go(file)
    told = rewrite(None)
    monkeypatch.setenv("test", "100")
    assert warnings() == []
    monkeypatch.delenv("test")
    go(file)
    now = json.loads(Path("run/knobs.json").read_text())["data"]
    assert {n: one["fingerprint"] for n, one in now.items()} == {
        n: one["fingerprint"] for n, one in told.items()
    }


@pytest.mark.parametrize("data", [{"train": 3, "evals/test": {"fingerprint": 3}}, []], ids=repr)
def test_what_cannot_be_a_fingerprint_is_none(file, data):
    go(file)
    rewrite(data)
    assert warnings() == []
    go(file)
