from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxmodels import Experiment, optim, train
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.cnn import CNN
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.pretrained import start_from
from jaxmodels.tasks.regress import regress

pytestmark = pytest.mark.fast

TASK = regress(MLP((300,), 2))
BATCH = {"features": np.ones((8, 7), np.float32), "target": np.ones((8, 2), np.float32)}
PARAMS = TASK.init(jax.random.key(7), BATCH)[0]
FIRST, *REST = PARAMS
PART = {FIRST: jax.tree.map(lambda x: x + 5, PARAMS[FIRST])}


@pytest.mark.slow
def test_the_given_parameters_are_there_and_the_others_are_the_tasks_own():
    key = jax.random.key(0)
    got = jax.jit(start_from(TASK, PART).init)(key, BATCH)[0]
    own = TASK.init(key, BATCH)[0]
    jax.tree.map(np.testing.assert_array_equal, got[FIRST], PART[FIRST])
    for name in REST:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got[name], own[name])


def test_no_array_is_written_into_the_program():
    text = jax.jit(start_from(TASK, PART).init).lower(jax.random.key(0), BATCH).as_text()
    bare = jax.jit(TASK.init).lower(jax.random.key(0), BATCH).as_text()
    assert len(text) < len(bare) + 2_000 < len(bare) + 4 * sum(x.size for x in jax.tree.leaves(PART))


@pytest.mark.slow
def test_a_run_begins_with_them():
    data = ArrayPipeline(BATCH, batch=8)
    task = start_from(TASK, PART)
    result = train(Experiment(task=task, optimizer=optim.sgd(0.0), train=data, steps=1))
    jax.tree.map(np.testing.assert_array_equal, result.state.params[FIRST], PART[FIRST])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"nowhere": np.ones(2)}, "got nowhere, which the task does not have; expected paths"),
        (jax.tree.map(lambda x: x[:1], PART), r"of the shape \(1.*\); expected \("),
        (np.ones(3), "got ndarray; expected a nested mapping"),
    ],
)
def test_what_does_not_fit_is_refused(given, text):
    with pytest.raises(ValueError, match=text):
        jax.eval_shape(start_from(TASK, given).init, jax.random.key(0), BATCH)


IMAGES = {
    "image": np.ones((2, 4, 4, 1), np.float32),
    "label": np.zeros(2, np.int32),
    "weight": np.ones(2, np.float32),
}
NORMED = classify(CNN(3, (2,), hidden=0, batch_norm=True))
STATISTICS = {"batch_stats": {"norm_0": {"mean": np.array([3.0, 4.0]), "var": np.array([5.0, 6.0])}}}


@pytest.mark.slow
def test_given_statistics_are_there_beside_the_tasks_own_parameters():
    key = jax.random.key(0)
    own, _ = NORMED.init(key, IMAGES)
    params, extra = jax.jit(start_from(NORMED, {}, STATISTICS).init)(key, IMAGES)
    jax.tree.map(np.testing.assert_array_equal, extra, STATISTICS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, own)
    assert extra["batch_stats"]["norm_0"]["mean"].dtype == np.float32


@pytest.mark.parametrize(
    ("task", "batch", "extra", "text"),
    [
        (
            NORMED,
            IMAGES,
            {"batch_stats": {"norm_9": np.ones(2)}},
            "got batch_stats/norm_9, which .* its other variables, such",
        ),
        (
            NORMED,
            IMAGES,
            {"batch_stats": {"norm_0": {"mean": np.ones(3)}}},
            r"of the shape \(3,\); expected \(2,\)",
        ),
        (TASK, BATCH, STATISTICS, "expected nothing, it has no other variables"),
        (NORMED, IMAGES, np.ones(3), "got ndarray; expected a nested mapping"),
    ],
)
def test_other_variables_that_do_not_fit_are_refused(task, batch, extra, text):
    with pytest.raises(ValueError, match=text):
        jax.eval_shape(start_from(task, {}, extra).init, jax.random.key(0), batch)
