"""Dimensions: B batch, Q queries, M boxes, K classes, L layers."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
from tasks.test_detect import scenes

from jaxmodels import optim
from jaxmodels.models.detr import DETR, Queries
from jaxmodels.models.resnet import Basic, ResNet
from jaxmodels.scores.average_precision import average_precision
from jaxmodels.step import init, make_step
from jaxmodels.task import value
from jaxmodels.tasks.detect import pairs
from jaxmodels.tasks.set_prediction import assign, predict, set_prediction

fast = pytest.mark.fast


class Said:
    """A model that says the same to every image; its parameters are what it says."""

    def init(self, key, image):
        return {"params": {}}

    def apply(self, variables, image, keys=None, **_):
        return variables["params"]["said"]


def said(logits, boxes):
    """Queries of one layer and one image."""
    return {
        "said": Queries(np.array(logits, np.float32)[None, None], np.array(boxes, np.float32)[None, None])
    }


def batch(boxes, classes, present, weight=1.0):
    values = {"boxes": boxes, "present": present, "weight": weight}
    arrays = {name: np.array([x], np.float32) for name, x in values.items()}
    return {**arrays, "image": np.zeros((1, 10, 20, 3), np.float32), "classes": np.array([classes], np.int32)}


def losses(params, data, **options):
    metrics = jax.jit(set_prediction(Said(), **options).evaluate)(params, {}, data)
    return {name: value(x) for name, x in metrics.items()}


@fast
@pytest.mark.parametrize("seed", range(4))
def test_the_assignment_is_the_cheapest_of_all(seed):
    cost = np.random.default_rng(seed).normal(size=(6, 4)).astype(np.float32)
    present = np.array([1, 1, 0, 1], np.float32)
    got = np.asarray(jax.jit(assign)(cost, present))
    assert len(set(got.tolist())) == 4
    real = present > 0

    def total(queries):
        return cost[list(queries), np.arange(4)][real].sum()

    assert total(got) == pytest.approx(min(map(total, itertools.permutations(range(6), 4))), abs=1e-5)


@fast
def test_costs_that_are_no_numbers_end_too():
    got = jax.jit(assign)(np.full((5, 3), np.nan, np.float32), np.ones(3, np.float32))
    assert len(set(np.asarray(got).tolist())) == 3


@pytest.mark.slow
@fast
def test_who_says_all_right_has_no_loss_in_whatever_order():
    boxes = [[0, 0, 5, 10], [2, 4, 8, 16]]
    sure = 40 * np.eye(3)
    params = said([sure[2], sure[1], sure[0]], [[0, 0, 1, 1], boxes[1], boxes[0]])
    for order in ([0, 1], [1, 0]):
        got = losses(params, batch([boxes[i] for i in order], order, [1, 1]))
        assert got == pytest.approx({"loss": 0, "class_loss": 0, "box_loss": 0}, abs=1e-4)


@pytest.mark.slow
@fast
def test_the_loss_is_the_papers_by_hand():
    """One object, two queries; the first is nearer, so the second predicts no object."""
    logits = np.log(np.array([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]], np.float32))
    params = said(logits, [[0, 0, 5, 8], [5, 10, 10, 20]])
    got = losses(params, batch([[0, 0, 5, 10]], [0], [1]))
    distance = 0 + 0.05 + 0 + 0.1  # centre x 0.2 and 0.25, width 0.4 and 0.5
    overlap = 0.8  # the smaller is inside the larger, so the generalised one is the same
    assert got["box_loss"] == pytest.approx(5 * distance + 2 * (1 - overlap), rel=1e-4)
    assert got["class_loss"] == pytest.approx(-np.log(0.5) - 0.1 * np.log(0.3), rel=1e-4)
    assert got["loss"] == pytest.approx(got["class_loss"] + got["box_loss"], rel=1e-5)


@pytest.mark.slow
@fast
def test_boxes_that_are_not_there_and_images_without_weight_have_no_effect():
    logits = np.log(np.array([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]], np.float32))
    params = said(logits, [[0, 0, 5, 8], [5, 10, 10, 20]])
    want = losses(params, batch([[0, 0, 5, 10]], [0], [1]))
    assert losses(params, batch([[0, 0, 5, 10], [1, 1, 9, 9]], [0, 1], [1, 0])) == pytest.approx(
        want, rel=1e-5
    )
    metrics = set_prediction(Said()).evaluate(params, {}, batch([[0, 0, 5, 10]], [0], [1], weight=0.0))
    assert all(float(mean.total) == float(mean.weight) == 0 for mean in metrics.values())
    empty = losses(params, batch([[0, 0, 0, 0]], [0], [0]))
    assert empty["box_loss"] == 0 and empty["class_loss"] == pytest.approx(-0.2 * np.log(0.3), rel=1e-4)


@pytest.mark.slow
@fast
def test_fewer_queries_than_boxes_are_refused():
    params = said(np.zeros((1, 3)), np.zeros((1, 4)))
    with pytest.raises(
        ValueError,
        match="set_prediction: got 1 queries for up to 2 boxes of an image; expected no fewer queries",
    ):
        set_prediction(Said()).evaluate(params, {}, batch([[0, 0, 1, 1]] * 2, [0, 0], [1, 1]))


@pytest.mark.thorough
def test_it_learns_to_find_what_is_on_images():
    backbone = ResNet(0, (1, 1), Basic, widths=(8, 16), stem="plain", stem_width=8)
    model = DETR(backbone, "stage_2", 2, queries=4, width=32, heads=2, depth=1, hidden_width=64, dropout=0.0)
    task, optimizer = set_prediction(model), optim.adamw(3e-3, clip=1.0)
    data = {name: x[:8] for name, x in scenes(8).items()}
    data["image"] = data["image"][:, ::2, ::2]  # half as large
    data["boxes"] = data["boxes"] / 2
    state = init(task, optimizer, 0, data)
    step = jax.jit(make_step(task, optimizer))
    for _ in range(300):
        state, metrics = step(state, data)
    assert value(metrics["loss"]) < 0.5
    found = jax.device_get(jax.jit(predict(model))(state.params, state.extra, data))
    assert (np.diff(found.scores, axis=1) <= 0).all()
    pytest.importorskip("pycocotools", reason="needs pycocotools")
    assert average_precision(pairs([found], [data]), ("red", "blue"))["map50"] > 0.9
