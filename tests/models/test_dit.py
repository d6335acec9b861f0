"""Dimensions: B batch, H W image, C channels, N patches, D width, K classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from foreign import count, random_images

from jaxmodels.models.dit import DiT, dit_b, dit_xl, position_encoding

pytestmark = pytest.mark.fast

MODEL = DiT(8, 2, 2, patch=2, hidden_width=12, classes=3)
X, TIME, LABEL = random_images(2, 4, 6, 3), np.array([0.1, 0.7], np.float32), np.array([2, 3])


def by_hand(depth, D, patch, C, classes):
    """A block: 6 D (D + 1) to modulate, 4 D^2 + 4 D of attention, 8 D^2 + 5 D of the MLP."""
    own = depth * (6 * D * (D + 1) + 4 * D * D + 4 * D + 8 * D * D + 5 * D)
    ends = patch**2 * C * D + D + 2 * D * (D + 1) + D * patch**2 * C + patch**2 * C
    return own + ends + 256 * D + D + D * D + D + (classes + 1) * D


@pytest.mark.slow
@pytest.mark.parametrize(("make", "published"), [(dit_b, 130e6), (dit_xl, 675e6)])
def test_the_published_sizes_match_the_hand_count_and_the_papers_table(make, published):
    """The paper's table 1, to the nearest million, is of an output of twice the channels."""
    model = make(patch=2, classes=1000)
    x = jax.ShapeDtypeStruct((1, 32, 32, 4), np.float32)
    params = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, time_B=jnp.zeros(1)), x)["params"]
    assert count(params) == by_hand(model.depth, model.width, 2, 4, 1000)
    assert count(params) == pytest.approx(published, rel=0.01)


@pytest.mark.slow
def test_it_begins_with_zeros_and_its_blocks_as_the_identity():
    variables = jax.jit(lambda: MODEL.init(jax.random.key(0), X, time_B=TIME))()
    out = jax.jit(lambda v: MODEL.apply(v, X, time_B=TIME, label_B=LABEL))(variables)
    assert out.shape == X.shape and not np.any(out)


@pytest.mark.slow
def test_it_equals_pytorch():
    torch = pytest.importorskip("torch")
    from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention, silu

    shapes = jax.eval_shape(lambda: MODEL.init(jax.random.key(0), X, time_B=TIME))["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: rng.normal(size=p.shape, scale=0.5).astype(np.float32), shapes)

    def t(a):
        return torch.tensor(np.asarray(a))

    def dense(y, p):
        return linear(y, t(p["kernel"]).T, t(p["bias"]))

    def norm(y):
        return layer_norm(y, (8,), eps=1e-6)

    angle = 1000 * t(TIME)[:, None] * torch.exp(-np.log(10_000) * torch.arange(128) / 128)
    c = torch.cat([angle.cos(), angle.sin()], -1)
    c = dense(silu(dense(c, params["time_1"])), params["time_2"]) + t(params["label"]["embedding"])[LABEL]
    c = silu(c)[:, None]
    patches = t(X).unfold(1, 2, 2).unfold(2, 2, 2).permute(0, 1, 2, 4, 5, 3).reshape(2, 6, 12)
    h = dense(patches, params["embed"]) + t(position_encoding(2, 3, 8))
    for i in range(2):
        p = jax.tree.map(lambda a, i=i: a[i], params["blocks"])
        shift, scale, gate, shift2, scale2, gate2 = dense(c, p["modulation"]).chunk(6, -1)
        q, k, v = (
            y.reshape(2, 6, 2, 4).transpose(1, 2)
            for y in dense(norm(h) * (1 + scale) + shift, p["qkv"]).chunk(3, -1)
        )
        h = h + gate * dense(scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 6, 8), p["out"])
        y = dense(norm(h) * (1 + scale2) + shift2, p["up"])
        h = h + gate2 * dense(gelu(y, approximate="tanh"), p["down"])
    shift, scale = dense(c, params["modulation"]).chunk(2, -1)
    out = dense(norm(h) * (1 + scale) + shift, params["last"])
    want = out.reshape(2, 2, 3, 2, 2, 3).permute(0, 1, 3, 2, 4, 5).reshape(2, 4, 6, 3)
    got = jax.jit(lambda p: MODEL.apply({"params": p}, X, time_B=TIME, label_B=LABEL))(params)
    np.testing.assert_allclose(got, want.numpy(), rtol=2e-4, atol=2e-4)


def test_position_encodings_are_those_of_the_paper():
    """A quarter of the width each: sines and cosines of the column, then of the row."""
    got = position_encoding(2, 3, 8)
    assert got.shape == (6, 8)
    want = [
        np.sin(2),
        np.sin(0.02),
        np.cos(2),
        np.cos(0.02),
        np.sin(1),
        np.sin(0.01),
        np.cos(1),
        np.cos(0.01),
    ]
    np.testing.assert_allclose(got[5], want, rtol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        ValueError, match="DiT: got images of 5x6, width 8 and 2 heads; expected multiples of the patch, 2"
    ):
        jax.eval_shape(
            lambda x: MODEL.init(jax.random.key(0), x, time_B=TIME), np.zeros((2, 5, 6, 3), np.float32)
        )
