"""A model of flax.nnx in the runner, by the three functions of a Task."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from states import same_bits

from jaxmodels import train
from jaxmodels.training import runner

pytestmark = pytest.mark.fast
FILE = Path(__file__).parents[1] / "experiments" / "digits_nnx.py"


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("digits_nnx", FILE)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def batch(rows: int = 6) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    image = random.random((rows, 8, 8, 1), np.float32)
    return {"image": image, "label": np.arange(rows) % 10, "weight": np.ones(rows, np.float32)}


@pytest.mark.slow
def test_parameters_are_a_plain_tree_and_outputs_are_those_of_numpy(module):
    task, data = module.nnx_classify(lambda rngs: module.Net(5, 10, 0.5, rngs)), batch()
    params, extra = task.init(jax.random.key(0), data)
    assert (
        extra == {}
        and {*params} == {"hidden", "norm", "head"}
        and params["hidden"]["kernel"].shape == (64, 5)
    )
    x = data["image"].reshape(6, -1) @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = jax.nn.gelu(x * params["norm"]["scale"] + params["norm"]["bias"])
    logits = np.asarray(x @ params["head"]["kernel"] + params["head"]["bias"], np.float64)
    want = np.log(np.exp(logits).sum(-1)) - logits[np.arange(6), data["label"]]
    got = task.evaluate(params, extra, data)
    assert float(got["loss"].total) == pytest.approx(want.sum(), rel=1e-4) and float(got["loss"].weight) == 6


@pytest.mark.slow
def test_dropout_is_of_the_example_wherever_it_lies(module):
    task, data = module.nnx_classify(lambda rngs: module.Net(32, 10, 0.5, rngs)), batch()
    params, extra = task.init(jax.random.key(0), data)
    keys_B = jax.random.split(jax.random.key(1), 6)
    whole = task.loss(params, extra, data, keys_B)[0].total
    parts = [
        task.loss(params, extra, {k: x[part] for k, x in data.items()}, keys_B[part])[0].total
        for part in (slice(0, 2), slice(2, 6))
    ]
    assert float(whole) == pytest.approx(float(sum(parts)), rel=1e-5)
    others = jax.random.split(jax.random.key(2), 6)
    assert not jnp.allclose(whole, task.loss(params, extra, data, others)[0].total)


@pytest.mark.slow
def test_it_trains_and_goes_on_with_the_same_bits(tmp_path):
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    knobs = {"steps": 12, "width": 8, "mesh": "data=1"}
    whole = train(FILE, folder=str(tmp_path / "whole"), **knobs)
    with pytest.raises(runner.Interrupted):
        train(FILE, folder=str(tmp_path / "run"), stop_at=5, **knobs)
    same_bits(train(FILE, folder=str(tmp_path / "run"), **knobs).state, whole.state)
