"""Every file of experiments/ builds without reading data, and its step is traced: shapes and types fit."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxmodels.runs import experiment_file
from jaxmodels.state import initial
from jaxmodels.step import make_step

pytestmark = pytest.mark.fast

FOLDER = Path(__file__).parents[1] / "experiments"
FILES = sorted(FOLDER.glob("*.py"))


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


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_says_how_to_run_it(path):
    assert f"experiments/{path.name}" in (experiment_file.load(path).module.__doc__ or "")
