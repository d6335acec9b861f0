"""Dimensions: B batch, H W image, C channels, F features, K classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.models.alexnet import AlexNet, alexnet, alexnet_28

pytestmark = pytest.mark.fast


def shapes(model, H, C):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, H, H, C)))["params"]


def count(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.slow
def test_the_published_size_matches_the_hand_count():
    convolutions = [(3, 64, 121), (64, 192, 25), (192, 384, 9), (384, 256, 9), (256, 256, 9)]
    dense = [(36 * 256, 4096), (4096, 4096), (4096, 1000)]
    want = sum(C * F * k + F for C, F, k in convolutions) + sum(a * b + b for a, b in dense)
    assert count(shapes(alexnet(1000), 224, 3)) == want == 61_100_840


@pytest.mark.slow
def test_the_reduced_size_matches_the_hand_count():
    """28 pixels become 13, 6 and, after the last pooling, 2; brought to 3 x 3."""
    convolutions = [(1, 32, 25), (32, 64, 9), (64, 128, 9), (128, 96, 9), (96, 96, 9)]
    dense = [(9 * 96, 256), (256, 256), (256, 10)]
    want = sum(C * F * k + F for C, F, k in convolutions) + sum(a * b + b for a, b in dense)
    assert count(shapes(alexnet_28(10), 28, 1)) == want


@pytest.mark.slow
def test_features_are_maps_by_convolution():
    x = jnp.zeros((2, 224, 224, 3))
    model = alexnet(7)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    maps = jax.eval_shape(lambda v: model.apply(v, x, method="features"), variables)
    sizes = {
        "stage_1": (27, 64),
        "stage_2": (13, 192),
        "stage_3": (13, 384),
        "stage_4": (13, 256),
        "stage_5": (6, 256),
    }
    assert {name: m.shape for name, m in maps.items()} == {
        name: (2, H, H, C) for name, (H, C) in sizes.items()
    }


@pytest.mark.slow
def test_without_classes_the_last_hidden_layer_comes():
    model, bare = (
        AlexNet(k, channels=(4,) * 5, final=1, hidden=(6, 5), stride=1, kernels=(3,) * 5, padding=(1,) * 5)
        for k in (3, 0)
    )
    x = np.random.default_rng(0).normal(size=(2, 28, 28, 1)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    head = variables["params"]["head"]
    rest = {"params": {name: p for name, p in variables["params"].items() if name != "head"}}
    features = jax.jit(bare.apply)(rest, x)
    np.testing.assert_allclose(
        jax.jit(model.apply)(variables, x), features @ head["kernel"] + head["bias"], rtol=1e-5, atol=1e-6
    )


def test_images_of_which_nothing_is_left_are_refused():
    with pytest.raises(ValueError, match=r"AlexNet: got images of 28x28, .*; expected at least 63x63"):
        shapes(alexnet(10), 28, 3)
