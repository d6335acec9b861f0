"""Every file of experiments/ builds without reading data, and its step is traced: shapes and types fit."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from files import tiny_mlp

from jaxmodels import Target
from jaxmodels.pipeline import Pipeline
from jaxmodels.runs import experiment_file
from jaxmodels.runs.check_experiment import check_parts
from jaxmodels.state import batch_shapes, initial
from jaxmodels.step import make_step

pytestmark = pytest.mark.fast

FOLDER = Path(__file__).parents[1] / "experiments"
_spec = importlib.util.spec_from_file_location("reproduce", FOLDER / "reproduce.py")
reproduce = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reproduce)
FILES = reproduce.experiments()


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiments_step_can_be_traced_without_data(path, monkeypatch, tmp_path):
    file = experiment_file.load(path)
    try:
        experiment = file.build(experiment_file.make_config(file, {}))
        spec = experiment.train.spec.items()
    except (FileNotFoundError, ImportError) as error:
        pytest.skip(f"needs files or a package that are not here: {error}")
    state = jax.eval_shape(lambda: initial(experiment))
    batch = {
        name: jax.ShapeDtypeStruct((experiment.train.batch, *shape), jax.dtypes.canonicalize_dtype(kind))
        for name, (shape, kind) in spec
    }
    step = (experiment.make_step or make_step)(experiment.task, experiment.optimizer)
    after, metrics = jax.eval_shape(step, state, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert metrics["loss"].total.dtype == jnp.float32
    check_parts(experiment)  # whose target is of one of its evaluations
    if experiment.target is not None and isinstance(
        data := experiment.evals[experiment.target.split], Pipeline
    ):
        names = jax.eval_shape(experiment.task.evaluate, state.params, state.extra, batch_shapes(data))
        assert experiment.target.metric in experiment.task.finish(dict.fromkeys(names, 0.5))


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_says_how_to_run_it(path):
    assert f"experiments/{path.name}" in (experiment_file.load(path).module.__doc__ or "")


def test_every_experiment_that_states_a_result_or_what_is_published_states_a_target():
    said = [path for path in FILES if re.search(r"^(Result|Published):", path.read_text(), re.MULTILINE)]
    # The first is of trained weights, the second of ten rates at three widths.
    without = {"kws_ds_cnn", "mup_transfer"}
    assert {path.stem for path in said if "target=" not in path.read_text()} == without


@pytest.mark.slow
def test_a_quick_reproduction_trains_three_steps_and_writes_nothing():
    before = [path.read_text() for path in (reproduce.RESULTS, reproduce.PAGE)]
    command = [sys.executable, str(reproduce.FOLDER / "reproduce.py"), "--quick", "--only", "tabular_mlp"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "tabular_mlp: trains" in done.stdout, (done.stdout, done.stderr)
    assert [path.read_text() for path in (reproduce.RESULTS, reproduce.PAGE)] == before


def test_the_page_has_every_result_and_its_margin():
    page, entries = reproduce.PAGE.read_text(), json.loads(reproduce.RESULTS.read_text())
    for command, of in entries.items():
        row = reproduce.row(command, of, None)
        assert row[:-2] in page, command


def test_a_finished_run_gives_its_result_and_an_unfinished_one_says_so(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"exit": "stopped", "metrics": {}}))
    assert "not complete" in reproduce.entry("digits_mlp", tmp_path).reason
    done = {"exit": "complete", "metrics": {"test/accuracy": 0.995}, "wall_s": 90.0}
    (tmp_path / "result.json").write_text(json.dumps(done))
    found = reproduce.entry("digits_mlp", tmp_path).entry
    assert (found["result"], found["minutes"]) == (0.995, 1.5)
    (tmp_path / "result.json").write_text(json.dumps({**done, "metrics": {"test/loss": 1.0}}))
    assert "got no test/accuracy" in reproduce.entry("digits_mlp", tmp_path).reason


def test_a_result_is_older_than_the_files_that_its_experiment_imports(monkeypatch):
    files = reproduce.sources(FOLDER / "digits_mlp.py")
    names = {str(file.relative_to(reproduce.ROOT)) for file in files}
    assert {"jaxmodels/models/mlp.py", "jaxmodels/data/datasets/digits.py"} <= names
    assert not {name for name in names if name.startswith(("jaxmodels/training", "jaxmodels/models/gpt"))}
    asked = []
    monkeypatch.setattr(reproduce, "_git", lambda *words: asked.append(words) or "")
    assert reproduce.changed_since("abc1234-dirty", files) is False
    assert "abc1234..HEAD" in asked[0] and names <= {*asked[0]}
    monkeypatch.setattr(reproduce, "_git", lambda *words: "def5678")
    assert reproduce.changed_since("abc1234", files) is True
    monkeypatch.setattr(reproduce, "_git", lambda *words: None)
    assert reproduce.changed_since("abc1234", files) is None


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target("accuracy", 0.9, "up"), "direction 'up'"),
        (Target("accuracy", float("nan"), "higher"), "finite number"),
        (Target("test/accuracy", 0.9, "higher"), "without the split"),
        (Target("loss", 0.9, "lower", split="valid"), "split 'valid'; expected one of evals .test"),
        (0.9, "expected a jaxmodels.Target"),
    ],
)
def test_a_target_that_no_result_can_be_compared_with_is_refused(target, said):
    experiment = tiny_mlp.build(tiny_mlp.Config())
    with pytest.raises(ValueError, match=said):
        check_parts(dataclasses.replace(experiment, target=target))


def test_a_margin_is_positive_where_a_result_is_better():
    assert reproduce.margin(Target("loss", 2.0, "lower"), 1.5) == 0.5
    assert reproduce.margin(Target("accuracy", 0.5, "higher"), 0.25) == -0.25
