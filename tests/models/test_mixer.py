"""Dimensions: B batch, H W image, N patches, D width."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from foreign import count, random_images, shapes

from jaxmodels.models.mixer import Mixer, mixer_b16, mixer_l16

pytestmark = pytest.mark.fast


def by_hand(depth, D, patch, size, classes):
    N, S, F = (size // patch) ** 2, D // 2, 4 * D
    block = 4 * D + 2 * N * S + S + N + 2 * D * F + F + D
    return 3 * patch**2 * D + D + depth * block + 2 * D + D * classes + classes


@pytest.mark.slow
def test_the_published_sizes_match_the_hand_count():
    assert count(shapes(mixer_b16(1000), 1, 224, 224, 3)) == by_hand(12, 768, 16, 224, 1000) == 59_880_472
    assert count(shapes(mixer_l16(1000), 1, 224, 224, 3)) == by_hand(24, 1024, 16, 224, 1000) == 208_196_168


MODEL = Mixer(3, 8, 3, 4, size=(8, 12), token_hidden=5, hidden_width=7)


@pytest.mark.slow
def test_it_equals_pytorch_block_by_block():
    torch = pytest.importorskip("torch")
    from torch.nn.functional import conv2d, gelu, layer_norm, linear

    x = random_images(2, 8, 12, 3)
    params = jax.jit(MODEL.init)(jax.random.key(0), x)["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: rng.normal(size=p.shape, scale=0.5).astype(np.float32), params)

    def t(a):
        return torch.tensor(np.asarray(a))

    h = conv2d(
        t(x.transpose(0, 3, 1, 2)),
        t(params["embed"]["kernel"].transpose(3, 2, 0, 1)),
        t(params["embed"]["bias"]),
        4,
    )
    h = h.flatten(2).transpose(1, 2)
    for i in range(3):
        p = jax.tree.map(lambda a, i=i: t(a[i]), params["blocks"])

        def norm(y, name, p=p):
            return layer_norm(y, (8,), p[name]["scale"], p[name]["bias"], 1e-6)

        def dense(y, name, p=p):
            return linear(y, p[name]["kernel"].T, p[name]["bias"])

        y = dense(gelu(dense(norm(h, "norm_token").transpose(1, 2), "token_up")), "token_down").transpose(
            1, 2
        )
        h = h + y
        h = h + dense(gelu(dense(norm(h, "norm_channel"), "channel_up")), "channel_down")
    h = layer_norm(h, (8,), t(params["norm"]["scale"]), t(params["norm"]["bias"]), 1e-6).mean(1)
    want = h @ t(params["head"]["kernel"]) + t(params["head"]["bias"])
    np.testing.assert_allclose(
        jax.jit(MODEL.apply)({"params": params}, x), want.numpy(), rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
def test_features_are_maps_after_each_quarter():
    x = jax.ShapeDtypeStruct((2, 8, 12, 3), np.float32)
    variables = jax.eval_shape(MODEL.init, jax.random.key(0), x)
    maps = jax.eval_shape(lambda v, x: MODEL.apply(v, x, method="features"), variables, x)
    assert {name: m.shape for name, m in maps.items()} == {f"block_{i}": (2, 2, 3, 8) for i in (1, 2, 3)}


def test_images_of_another_size_are_refused():
    with pytest.raises(
        ValueError, match=r"Mixer: got images of 8x8; expected 8x12, 2x3 patches of 4\. Resize the images"
    ):
        shapes(MODEL, 1, 8, 8, 3)
