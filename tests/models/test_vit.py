"""Dimensions: B batch, H W image, N patches, D width, K classes."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.models import vit
from jaxmodels.models.vit import ViT

pytestmark = pytest.mark.fast

SMALL = partial(ViT, classes=5, width=8, depth=3, heads=2, patch=4, size=(8, 12))
IMAGE = np.random.default_rng(0).normal(size=(3, 8, 12, 2)).astype(np.float32)


def count(model, *shape):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape)))
    return sum(x.size for x in jax.tree.leaves(shapes))


def started(model, **options):
    """(variables with noise added, so that nothing is zero, the call)."""
    variables = jax.jit(model.init)(jax.random.key(0), IMAGE)
    random = np.random.default_rng(1)
    variables = jax.tree.map(lambda x: x + 0.3 * random.normal(size=x.shape).astype(np.float32), variables)
    return variables, jax.jit(partial(model.apply, **options))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (vit.vit_ti16, 5_717_416),
        (vit.vit_s16, 22_050_664),
        (vit.vit_b16, 86_567_656),
        (vit.vit_l16, 304_326_632),
        (vit.vit_h14, 632_045_800),
    ],
    ids=["Ti", "S", "B", "L", "H"],
)
def test_published_sizes_have_their_number_of_parameters(model, parameters):
    assert count(model(1000), 224, 224, 3) == parameters


@pytest.mark.slow
def test_base_matches_the_hand_count():
    D, F, N = 768, 3072, 196
    block = D * 3 * D + 3 * D + D * D + D + D * F + F + F * D + D + 4 * D
    want = 16 * 16 * 3 * D + D + (N + 1) * D + D + 12 * block + 2 * D + D * 1000 + 1000
    assert count(vit.vit_b16(1000), 224, 224, 3) == want == 86_567_656


@pytest.mark.slow
def test_the_small_size_for_grey_images_matches_the_hand_count():
    """No class token: 16 x 64 + 64, 49 positions, six blocks, the last normalisation, the head."""
    block = 64 * 192 + 192 + 64 * 64 + 64 + 2 * 64 * 128 + 128 + 64 + 4 * 64
    assert count(vit.vit_28(10), 28, 28, 1) == 1_088 + 49 * 64 + 6 * block + 128 + 650 == 205_834


def numpy_vit(p, image_BHWC, heads=2, patch=4):
    """The paper's equations 1 to 4, with a class token."""
    from scipy.special import erf

    def norm(x, q):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * q["scale"] + q[
            "bias"
        ]

    def dense(x, q):
        return x @ q["kernel"] + q["bias"]

    B, H, W, C = image_BHWC.shape
    x = image_BHWC.reshape(B, H // patch, patch, W // patch, patch, C).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(B, -1, patch * patch * C) @ p["embed"]["kernel"].reshape(-1, 8) + p["embed"]["bias"]
    x = np.concatenate([np.repeat(p["token"][None], B, 0), x], 1) + p["position"]
    for layer in range(3):
        q = jax.tree.map(lambda a: a[layer], p["blocks"])  # noqa: B023
        y = dense(norm(x, q["norm_attention"]), q["qkv"])
        query, key, value = np.moveaxis(y.reshape(B, -1, heads, 3, 8 // heads), 3, 0)
        score = np.einsum("bthd,bshd->bhts", query, key) / np.sqrt(8 // heads)
        weight = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
        x = x + dense(np.einsum("bhts,bshd->bthd", weight, value).reshape(x.shape), q["out"])
        y = dense(norm(x, q["norm_mlp"]), q["up"])
        x = x + dense(y * 0.5 * (1 + erf(y / np.sqrt(2))), q["down"])
    return dense(norm(x, p["norm"])[:, 0], p["head"])


@pytest.mark.slow
def test_it_equals_the_formulas_in_numpy():
    variables, call = started(SMALL())
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    np.testing.assert_allclose(call(variables, IMAGE), numpy_vit(p, IMAGE), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_mean_pooling_is_the_mean_of_the_patches_tokens_and_needs_no_class_token():
    model = SMALL(classes=0, pool="mean", registers=2)
    variables, call = started(model)
    assert "token" not in variables["params"] and variables["params"]["position"].shape == (6, 8)
    tokens_BTD = jax.jit(partial(model.apply, method="tokens"))(variables, IMAGE)
    assert tokens_BTD.shape == (3, 2 + 6, 8)
    np.testing.assert_allclose(call(variables, IMAGE), tokens_BTD[:, 2:].mean(1), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_keeping_all_patches_is_seeing_all_and_their_order_does_not_matter():
    model = SMALL(registers=1)
    variables, _ = started(model)
    tokens = jax.jit(partial(model.apply, method="tokens"))
    order_BN = np.stack([np.random.default_rng(i).permutation(6) for i in range(3)])
    all_BTD, mixed_BTD = tokens(variables, IMAGE), tokens(variables, IMAGE, None, order_BN)
    want = np.take_along_axis(np.asarray(all_BTD)[:, 2:], order_BN[..., None], 1)
    np.testing.assert_allclose(mixed_BTD[:, 2:], want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mixed_BTD[:, :2], all_BTD[:, :2], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_patches_that_are_not_kept_have_no_effect():
    model = SMALL()
    variables, _ = started(model)
    tokens = jax.jit(partial(model.apply, method="tokens"))
    changed = IMAGE.copy()
    changed[:, :4, :4] = 9  # patch 0
    kept_Bn = np.tile([1, 3, 5], (3, 1))
    np.testing.assert_array_equal(
        tokens(variables, IMAGE, None, kept_Bn), tokens(variables, changed, None, kept_Bn)
    )


@pytest.mark.slow
def test_features_are_maps_after_each_quarter_and_the_last_is_the_patches_tokens():
    model = SMALL(depth=6, registers=1)
    variables, _ = started(model)
    maps = jax.jit(partial(model.apply, method="features"))(variables, IMAGE)
    assert {name: x.shape for name, x in maps.items()} == {f"block_{i}": (3, 2, 3, 8) for i in (2, 3, 5, 6)}
    tokens_BTD = jax.jit(partial(model.apply, method="tokens"))(variables, IMAGE)
    np.testing.assert_allclose(maps["block_6"].reshape(3, 6, 8), tokens_BTD[:, 2:], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_stochastic_depth_drops_whole_examples_by_their_own_keys_and_nothing_in_evaluation():
    model, without = SMALL(drop_path=0.5), SMALL()
    variables, call = started(model)
    keys_B = jax.random.split(jax.random.key(3), 3)
    np.testing.assert_array_equal(call(variables, IMAGE), started(without)[1](variables, IMAGE))
    first, again = call(variables, IMAGE, keys_B), call(variables, IMAGE[::-1], keys_B[::-1])[::-1]
    np.testing.assert_allclose(first, again, rtol=1e-5, atol=1e-5)
    others = [np.asarray(call(variables, IMAGE, jax.random.split(jax.random.key(i), 3))) for i in range(4)]
    assert len({x.tobytes() for x in others}) > 1


@pytest.mark.slow
def test_layer_scale_begins_with_its_value():
    model = SMALL(layer_scale=0.1)
    blocks = jax.jit(model.init)(jax.random.key(0), IMAGE)["params"]["blocks"]
    for name in ("scale_attention", "scale_mlp"):
        np.testing.assert_array_equal(blocks[name], np.full((3, 8), 0.1, np.float32))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (SMALL(size=16), r"ViT: got images of 8x12; expected 16x16, 4x4 patches of 4\. Resize the images"),
        (SMALL(width=9), r"ViT: got width 9 and 2 heads; expected a multiple of the number of heads"),
    ],
)
def test_what_does_not_fit_is_refused(model, said):
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(model.init, jax.random.key(0), IMAGE)
