"""Dimensions: B batch, H W image, F features, K classes."""

from __future__ import annotations

from itertools import pairwise

import jax
import numpy as np
import pytest
from foreign import count, random_images, shapes

from jaxmodels.models.convnext import ConvNeXt, convnext_base, convnext_large, convnext_small, convnext_tiny

pytestmark = pytest.mark.fast


def by_hand(depths, widths, classes):
    """A block of width C: 49 C + C, twice C, 4 C C + 4 C, 4 C C + C, and C."""
    stem = 16 * 3 * widths[0] + widths[0] + 2 * widths[0]
    blocks = sum(n * (8 * C * C + 58 * C) for n, C in zip(depths, widths, strict=True))
    down = sum(2 * a + 4 * a * b + b for a, b in pairwise(widths))
    return stem + blocks + down + 2 * widths[-1] + widths[-1] * classes + classes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "want"),
    [
        (convnext_tiny, 28_589_128),
        (convnext_small, 50_223_688),
        (convnext_base, 88_591_464),
        (convnext_large, 197_767_336),
    ],
)
def test_the_published_sizes_match_the_hand_count(make, want):
    model = make(1000)
    assert count(shapes(model, 1, 224, 224, 3)) == by_hand(model.depths, model.widths, 1000) == want


@pytest.mark.slow
def test_features_are_maps_by_stage_and_without_classes_come_the_pooled_ones():
    model, x = ConvNeXt(0, (1, 2), (4, 6), patch=2), random_images(2, 8, 8, 3)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    maps = jax.jit(lambda v: model.apply(v, x, method="features"))(variables)
    assert {name: m.shape for name, m in maps.items()} == {
        "stem": (2, 4, 4, 4),
        "stage_1": (2, 4, 4, 4),
        "stage_2": (2, 2, 2, 6),
    }
    pooled = np.asarray(maps["stage_2"]).mean((1, 2))
    want = (pooled - pooled.mean(-1, keepdims=True)) / np.sqrt(pooled.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(jax.jit(model.apply)(variables, x), want, rtol=1e-4, atol=1e-4)
    assert "head" not in variables["params"]


@pytest.mark.slow
def test_stochastic_depth_leaves_the_first_block_alone_and_drops_the_last_for_whole_examples():
    model, x = ConvNeXt(3, (1, 1), (4, 6), patch=2, drop_path=0.5, layer_scale=1.0), random_images(8, 8, 8, 3)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    maps = jax.jit(lambda v, keys: model.apply(v, x, keys, method="features"))
    still, moved = maps(variables, None), maps(variables, jax.random.split(jax.random.key(1), 8))
    np.testing.assert_array_equal(still["stage_1"], moved["stage_1"])
    same = np.isclose(still["stage_2"], moved["stage_2"]).all((1, 2, 3))
    assert not same.any()  # dropped, or twice as large


def test_images_too_small_are_refused():
    with pytest.raises(
        ValueError, match="ConvNeXt: got images of 16x32; expected at least 32x32, by 4 stages and patches"
    ):
        shapes(convnext_tiny(5), 1, 16, 32, 3)
