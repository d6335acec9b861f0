"""Dimensions: B batch, H W image, C channels, K classes. Against PyTorch: tests/convert/test_inception.py."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from foreign import count, random_images, shapes

from jaxmodels.models.inception import googlenet, googlenet_28, inception_v3

pytestmark = pytest.mark.fast


@pytest.mark.slow
def test_the_reduced_size_matches_the_hand_count():
    """Each convolution has two numbers of normalisation for a channel."""
    blocks = [
        (32, 16, 24, 32, 4, 8, 8),
        (64, 32, 32, 48, 8, 24, 16),
        (120, 48, 24, 52, 4, 12, 16),
        (128, 40, 28, 56, 6, 16, 16),
        (128, 64, 40, 80, 8, 32, 32),
        (208, 64, 40, 80, 8, 32, 32),
    ]
    total = 9 * 32 + 2 * 32
    for C, one, narrow, three, narrower, five, pooled in blocks:
        convolutions = [
            (C, one, 1),
            (C, narrow, 1),
            (narrow, three, 9),
            (C, narrower, 1),
            (narrower, five, 9),
            (C, pooled, 1),
        ]
        total += sum(a * b * k + 2 * b for a, b, k in convolutions)
    assert count(shapes(googlenet_28(10), 1, 28, 28, 1)) == total + 208 * 10 + 10 == 194_446


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "size", "want"),
    [
        (
            googlenet(10),
            224,
            {"stem": (56, 192), "stage_1": (28, 480), "stage_2": (14, 832), "stage_3": (7, 1024)},
        ),
        (
            inception_v3(10),
            299,
            {"stem": (35, 192), "stage_1": (35, 288), "stage_2": (17, 768), "stage_3": (8, 2048)},
        ),
    ],
    ids=["googlenet", "v3"],
)
def test_features_are_maps_by_stage(model, size, want):
    x = jax.ShapeDtypeStruct((2, size, size, 3), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    maps = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), variables, x)
    assert {name: m.shape for name, m in maps.items()} == {
        name: (2, H, H, C) for name, (H, C) in want.items()
    }


@pytest.mark.slow
def test_without_classes_come_the_pooled_features():
    bare, x = googlenet_28(0), random_images(2, 28, 28, 1)
    variables = jax.jit(bare.init)(jax.random.key(0), x)
    both = jax.jit(lambda v: (bare.apply(v, x), bare.apply(v, x, method="features")["stage_3"].mean((1, 2))))
    got, want = both(variables)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert got.shape == (2, 208) and "head" not in variables["params"]


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        ValueError, match=r"InceptionV3: got images of 64x80; expected at least 75x75 \(published: 299x299\)"
    ):
        shapes(inception_v3(5), 1, 64, 80, 3)
    with pytest.raises(
        ValueError, match="GoogLeNet: got auxiliary heads for a second stage of less than four blocks"
    ):
        shapes(googlenet_28(5, auxiliary=True), 1, 28, 28, 1)
