"""Dimensions: B batch, H W image, F features, K classes."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from foreign import count, random_images, shapes

from jaxmodels.models.mobilenet import (
    Inverted,
    MobileNet,
    mobilenet_v2,
    mobilenet_v3_large,
    mobilenet_v3_small,
    rounded,
)

pytestmark = pytest.mark.fast


def by_hand(model, classes):
    """Convolutions without bias, two parameters of normalisation a channel, squeeze-excite."""
    total, C = 27 * model.stem + 2 * model.stem, model.stem
    for kernel, inner, out, _, excite, _ in model.rows:
        total += (
            (C * inner + 2 * inner if inner != C else 0)
            + kernel**2 * inner
            + 2 * inner
            + inner * out
            + 2 * out
        )
        narrow = rounded(inner / 4)
        total += 2 * inner * narrow + inner + narrow if excite else 0
        C = out
    total += C * model.last + 2 * model.last
    last = model.last
    if model.dense:
        total, last = total + last * model.dense + model.dense, model.dense
    return total + last * classes + classes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "want"),
    [(mobilenet_v2, 3_504_872), (mobilenet_v3_large, 5_483_032), (mobilenet_v3_small, 2_542_856)],
)
def test_the_published_sizes_match_the_hand_count(make, want):
    model = make(1000)
    assert count(shapes(model, 1, 224, 224, 3)) == by_hand(model, 1000) == want


@pytest.mark.parametrize(
    ("width", "want"), [(4.0, 8), (12, 16), (18, 24), (22, 24), (240, 240), (168, 168), (26, 24), (30, 32)]
)
def test_widths_are_multiples_of_eight_that_lose_at_most_a_tenth(width, want):
    assert rounded(width) == want and rounded(width) >= 0.9 * width


@pytest.mark.slow
def test_features_end_at_each_resolution():
    model = mobilenet_v2(10)
    x = jax.ShapeDtypeStruct((2, 224, 224, 3), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    maps = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), variables, x)
    sizes = {
        "stem": (112, 32),
        "stage_1": (112, 16),
        "stage_2": (56, 24),
        "stage_3": (28, 32),
        "stage_4": (14, 96),
    }
    sizes |= {"stage_5": (7, 320), "last": (7, 1280)}
    assert {name: m.shape for name, m in maps.items()} == {
        name: (2, H, H, C) for name, (H, C) in sizes.items()
    }


@pytest.mark.slow
def test_without_classes_come_the_pooled_features_and_dropout_needs_keys():
    rows = (Inverted(3, 4, 4), Inverted(3, 8, 6, 2))
    model, bare = (MobileNet(classes, rows, stem=4, last=7, dropout=0.5) for classes in (3, 0))
    x = random_images(4, 8, 8, 1)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    params = dict(variables["params"])
    head = params.pop("head")
    features = jax.jit(bare.apply)({**variables, "params": params}, x)
    assert features.shape == (4, 7)
    got = jax.jit(model.apply)(variables, x)
    np.testing.assert_allclose(got, features @ head["kernel"] + head["bias"], rtol=1e-4, atol=1e-5)
