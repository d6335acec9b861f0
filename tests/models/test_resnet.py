"""Dimensions: B batch, H W image, C channels, F features, K classes."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.models import resnet
from jaxmodels.models.resnet import Basic, CifarResNet, ResNet, WideResNet

pytestmark = pytest.mark.fast

SMALL = partial(ResNet, depths=(1, 2), widths=(4, 8), block=Basic, stem="plain", stem_width=4)


def shapes(model, H=64, C=3):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, H, H, C)))


def count(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (resnet.resnet18, 11_689_512),
        (resnet.resnet50, 25_557_032),
        (resnet.resnext50_32x4d, 25_028_904),
        (resnet.wide_resnet50_2, 68_883_240),
        (resnet.seresnet50, 28_088_024),
    ],
    ids=["18", "50", "resnext", "wide", "squeeze-excite"],
)
def test_published_sizes_have_their_number_of_parameters(model, parameters):
    assert count(shapes(model(1000))["params"]) == parameters


@pytest.mark.slow
def test_resnet_50_matches_the_hand_count():
    """Of each stage: its blocks' kernels, the shortcut's, two parameters a normalised channel; the head."""
    want, C = 3 * 7 * 7 * 64 + 2 * 64, 64
    for depth, width in zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True):
        F = 4 * width
        want += C * F + 2 * F
        for _ in range(depth):
            want += C * width + 9 * width * width + width * F + 2 * (2 * width + F)
            C = F
    want += 2048 * 1000 + 1000
    assert count(shapes(resnet.resnet50(1000))["params"]) == want == 25_557_032


def cifar_by_hand(depth: int, projections: bool) -> int:
    n, total, C = (depth - 2) // 6, 3 * 9 * 16 + 2 * 16, 16
    for width in (16, 32, 64):
        total += C * width + 2 * width if projections and width != C else 0
        for _ in range(n):
            total += 9 * C * width + 9 * width * width + 4 * width
            C = width
    return total + 64 * 10 + 10


@pytest.mark.slow
@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_cifars_sizes_match_the_hand_count(depth):
    assert count(shapes(CifarResNet(10, depth), 32)["params"]) == cifar_by_hand(depth, False)
    assert count(shapes(CifarResNet(10, depth, "B"), 32)["params"]) == cifar_by_hand(depth, True)


@pytest.mark.slow
def test_wrn_28_10_matches_the_hand_count():
    """Kernels, two numbers for each channel before each convolution, three projections, the head."""
    want, C = 3 * 9 * 16, 16
    for width in (160, 320, 640):
        want += C * width
        for _ in range(4):
            want += 9 * C * width + 9 * width * width + 2 * (C + width)
            C = width
    want += 2 * 640 + 640 * 10 + 10
    assert count(shapes(resnet.wrn28_10(10), 32)["params"]) == want == 36_479_194


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        (resnet.resnet50(7), {"stem": (32, 64), **{f"stage_{i}": (32 >> i, 128 << i) for i in range(1, 5)}}),
        (CifarResNet(7), {"stem": (64, 16), "stage_1": (64, 16), "stage_2": (32, 32), "stage_3": (16, 64)}),
        (
            WideResNet(7, 10, 2),
            {"stem": (64, 16), "stage_1": (64, 32), "stage_2": (32, 64), "stage_3": (16, 128)},
        ),
    ],
    ids=["resnet", "cifar", "wide"],
)
def test_features_are_maps_by_stage(model, sizes):
    image = jnp.zeros((2, 64, 64, 3))
    maps = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), shapes(model), image)
    assert {name: x.shape for name, x in maps.items()} == {
        name: (2, H, H, C) for name, (H, C) in sizes.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [SMALL, partial(CifarResNet, depth=8), partial(WideResNet, depth=10, widen=1)]
)
def test_without_classes_there_is_no_head_and_the_pooled_features_come(model):
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    with_head, without = model(classes=5), model(classes=0)
    variables = jax.jit(with_head.init)(jax.random.key(0), image)
    bare = {**variables, "params": {name: x for name, x in variables["params"].items() if name != "head"}}
    assert jax.tree.map(jnp.shape, jax.eval_shape(without.init, jax.random.key(0), image)) == jax.tree.map(
        jnp.shape, bare
    )
    logits, features = jax.jit(with_head.apply)(variables, image), jax.jit(without.apply)(bare, image)
    head = variables["params"]["head"]
    np.testing.assert_allclose(logits, features @ head["kernel"] + head["bias"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_at_the_start_every_block_of_a_stage_is_the_identity_of_what_is_not_negative():
    """Its last normalisation has the scale zero."""
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    deep, flat = CifarResNet(0, 20), CifarResNet(0, 8)

    def first(model):
        variables = jax.jit(model.init)(jax.random.key(0), image)
        maps = jax.jit(lambda v: model.apply(v, image, method="features"))(variables)
        return maps["stem"], maps["stage_1"]

    for model in (deep, flat):
        stem, stage = first(model)
        np.testing.assert_array_equal(stem, stage)


@pytest.mark.slow
def test_option_a_takes_every_other_pixel_and_puts_zeros_on_both_sides():
    """With the branch's scale zero, the first block of stage 2 gives the padded, subsampled map."""
    model = CifarResNet(0, 8)
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), image)
    maps = jax.jit(lambda v: model.apply(v, image, method="features"))(variables)
    want = np.zeros((2, 4, 4, 32), np.float32)
    want[..., 8:24] = np.asarray(maps["stage_1"])[:, ::2, ::2]
    np.testing.assert_array_equal(maps["stage_2"], want)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (CifarResNet(10, 21), r"CifarResNet: got a depth of 21; expected 6n \+ 2, such as 20, 32 or 56"),
        (WideResNet(10, 21), r"WideResNet: got a depth of 21; expected 6n \+ 4, such as 16 or 28"),
    ],
)
def test_a_depth_that_does_not_exist_is_refused(model, said):
    with pytest.raises(ValueError, match=said):
        shapes(model)
