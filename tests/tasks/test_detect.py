"""Dimensions: B batch, H W image, P locations, M boxes, K classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import optim
from jaxmodels.models.fcos import FCOS, FeaturePyramid, SimplePyramid
from jaxmodels.models.resnet import Basic, ResNet
from jaxmodels.models.vit import ViT
from jaxmodels.scores.average_precision import average_precision
from jaxmodels.step import init, make_step
from jaxmodels.task import value
from jaxmodels.tasks.detect import assign, detect, pairs, predict

H = W = 32


def detector(classes: int = 2) -> FCOS:
    backbone = ResNet(0, (1, 1, 1), Basic, widths=(8, 16, 16), stem="plain", stem_width=8)
    return FCOS(backbone, classes, ("stage_2", "stage_3"), FeaturePyramid(16), width=16, depth=1, groups=4)


def scenes(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Dark images with one bright red and one bright blue rectangle."""
    random = np.random.default_rng(seed)
    image = random.uniform(0, 0.2, (n, H, W, 3)).astype(np.float32)
    boxes = np.zeros((n, 3, 4), np.float32)
    for i in range(n):
        for k in range(2):
            h, w = random.integers(7, 13, 2)
            y, x = random.integers(0, H - h), random.integers(0, 16 - w + 1) + 16 * k
            image[i, y : y + h, x : x + w, 2 * k] = 1
            boxes[i, k] = y, x, y + h, x + w
    classes = np.tile(np.array([0, 1, 0], np.int32), (n, 1))
    present = np.tile(np.array([1, 1, 0], np.float32), (n, 1))
    return {
        "image": image,
        "boxes": boxes,
        "classes": classes,
        "present": present,
        "weight": np.ones(n, np.float32),
    }


def locations(sizes=((4, 8.0), (2, 16.0))):
    """(centres, strides) of levels of 32 x 32 images."""
    centers, strides = [], []
    for n, stride in sizes:
        centers.append(
            (np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1).reshape(-1, 2) + 0.5)
            * stride
        )
        strides.append(np.full(n * n, stride))
    return np.concatenate(centers).astype(np.float32), np.concatenate(strides).astype(np.float32)


def assigned(boxes, present, reach=2.0):
    target_P, positive_P = jax.jit(assign, static_argnums=4)(
        np.array(boxes, np.float32), np.array(present, np.float32), *locations(), reach
    )
    return np.asarray(target_P), np.asarray(positive_P)


@pytest.mark.fast
def test_a_location_finds_the_box_in_whose_middle_it_is_on_the_level_of_its_size():
    """With a reach of 2 strides, edges up to 16 pixels away are the fine level's, others the coarse one's."""
    target_P, positive_P = assigned([[2, 2, 14, 14], [0, 0, 32, 32]], [1, 1])
    center_P2, stride_P = locations()
    fine = stride_P == 8
    small = {tuple(c) for c in center_P2[positive_P & (target_P == 0)].tolist()}
    assert (
        small == {(4.0, 4.0), (4.0, 12.0), (12.0, 4.0), (12.0, 12.0)}
        and fine[positive_P & (target_P == 0)].all()
    )
    large = positive_P & (target_P == 1) & ~fine
    assert large.sum() == 4


@pytest.mark.fast
def test_of_two_boxes_the_smaller_is_found_and_absent_ones_never():
    target_P, positive_P = assigned([[0, 0, 16, 16], [1, 1, 13, 13]], [1, 1])
    assert positive_P[0] and target_P[0] == 1
    target_P, positive_P = assigned([[0, 0, 16, 16], [1, 1, 13, 13]], [1, 0])
    assert positive_P[0] and target_P[0] == 0
    assert not assigned([[0, 0, 16, 16], [1, 1, 13, 13]], [0, 0])[1].any()


def test_levels_give_locations_with_their_centres_and_boxes_around_them():
    model, x = detector(), jnp.zeros((2, H, W, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    got = jax.eval_shape(model.apply, variables, x)
    assert (got.logits_BPK.shape, got.boxes_BP4.shape) == ((2, 16 * 16 + 8 * 8, 2), (2, 320, 4))
    real = jax.jit(lambda x: model.init_with_output(jax.random.key(0), x)[0])(scenes(2)["image"])
    assert ((real.boxes_BP4[..., :2] < real.center_P2) & (real.boxes_BP4[..., 2:] > real.center_P2)).all()
    np.testing.assert_array_equal(real.center_P2[:2], [[1, 1], [1, 3]])
    np.testing.assert_array_equal(real.center_P2[-1], [30, 30])
    assert jax.nn.sigmoid(real.logits_BPK).max() < 0.05  # at the start nothing is found


def test_a_vit_serves_as_a_backbone_through_the_simple_pyramid():
    backbone = ViT(0, 8, 2, 2, 8, size=H)
    model = FCOS(backbone, 2, ("block_2",), SimplePyramid(16), width=16, depth=1)
    x = jnp.zeros((1, H, W, 3))
    got = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], x)
    assert got.logits_BPK.shape == (1, 8 * 8 + 4 * 4 + 2 * 2, 2)


def test_it_learns_to_find_rectangles():
    """After 150 steps the average precision on new scenes is high, and the boxes are the rectangles'."""
    model = detector()
    task, optimizer = detect(model), optim.adamw(optim.warmup_cosine(6e-3, warmup=10, steps=150))
    data = scenes(64)
    state = jax.jit(lambda: init(task, optimizer, 0, scenes(8)))()
    step = jax.jit(make_step(task, optimizer))
    for i in range(150):
        rows = np.arange(8) + 8 * (i % 8)
        state, _ = step(state, {name: x[rows] for name, x in data.items()})
    new = scenes(32, seed=1)
    found = jax.device_get(jax.jit(predict(model))(state.params, state.extra, new))
    pytest.importorskip("pycocotools", reason="needs pycocotools")
    got = average_precision(pairs([found], [new]), ("red", "blue"))
    assert got["map50"] > 0.9


def test_padding_boxes_and_padding_images_have_no_effect():
    model, batch = detector(), scenes(4)
    task = detect(model)
    params, extra = jax.jit(task.init)(jax.random.key(0), batch)
    evaluate = jax.jit(task.evaluate)
    batch["weight"][3] = 0
    changed = {name: x.copy() for name, x in batch.items()}
    changed["image"][3], changed["boxes"][3] = np.nan, 7
    changed["boxes"][:, 2], changed["classes"][:, 2] = [1, 1, 9, 9], 1
    for name, mean in evaluate(params, extra, batch).items():
        assert value(mean) == value(evaluate(params, extra, changed)[name])


def test_an_image_with_nothing_on_it_is_a_lesson_too():
    model, batch = detector(), scenes(2)
    batch["present"][:] = 0
    task = detect(model)
    params, extra = jax.jit(task.init)(jax.random.key(0), batch)
    metrics = jax.jit(task.evaluate)(params, extra, batch)
    assert value(metrics["score_loss"]) > 0 and value(metrics["box_loss"]) == 0
