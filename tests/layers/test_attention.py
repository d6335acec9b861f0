"""Attention against loops in NumPy, and its implementations against each other.

Dimensions: as in jaxmodels/layers/attention.py.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from instances import first

from jaxmodels.layers.attention import attention, banded, lowered_for, reference
from jaxmodels.layers.attention_mask import AttentionMask
from jaxmodels.layers.blockwise_attention import blockwise

fast = pytest.mark.fast

causal = jax.jit(partial(attention, causal=True))


def inputs(B=2, T=4, S=4, H=3, G=3, D=5, seed=0):
    random = np.random.default_rng(seed)
    return [jnp.asarray(random.normal(size=(B, n, h, D)), jnp.float32) for n, h in ((T, H), (S, G), (S, G))]


def numpy_attention(q_BTHD, k_BSGD, v_BSGD, sees, scale=None, bias=None):
    """Equation 1 of arXiv:1706.03762, one query of one head at a time; sees(b, t, s) is the mask."""
    B, T, H, D = q_BTHD.shape
    S, G = k_BSGD.shape[1:3]
    out = np.zeros(q_BTHD.shape)
    for b, t, h in np.ndindex(B, T, H):
        allowed = [s for s in range(S) if sees(b, t, s)]
        g = h // (H // G)
        scores = np.array([np.dot(q_BTHD[b, t, h], k_BSGD[b, s, g]) * (scale or D**-0.5) for s in allowed])
        if bias is not None:
            scores = scores + np.array([bias[h, t, s] for s in allowed])
        weights = np.exp(scores) / np.exp(scores).sum()
        out[b, t, h] = sum((w * v_BSGD[b, s, g] for w, s in zip(weights, allowed, strict=True)), np.zeros(D))
    return out


OFFSET = np.array([3, 1])
SEGMENTS = np.array([[1, 1, 2, 2, 0], [1, 2, 2, 2, 2]])


@pytest.mark.slow
@fast
@pytest.mark.parametrize(
    ("sizes", "options", "sees"),
    [
        ({}, {"causal": True}, lambda b, t, s: s <= t),
        ({"S": 6}, {}, lambda b, t, s: True),
        ({"T": 5, "S": 5}, {"causal": True, "window": 2}, lambda b, t, s: t - 2 < s <= t),
        ({"T": 2, "S": 6}, {"causal": True, "offset_B": OFFSET}, lambda b, t, s: s <= OFFSET[b] + t),
        (
            {"T": 5, "S": 5},
            {"segments": (SEGMENTS, SEGMENTS)},
            lambda b, t, s: SEGMENTS[b, t] == SEGMENTS[b, s],
        ),
        (
            {"T": 5, "S": 5},
            {"causal": True, "segments": (SEGMENTS, SEGMENTS)},
            lambda b, t, s: s <= t and SEGMENTS[b, t] == SEGMENTS[b, s],
        ),
        ({"T": 3, "S": 5, "H": 4, "G": 2}, {"scale": 0.7}, lambda b, t, s: True),
        (
            {"T": 3, "S": 5, "H": 4, "G": 1},
            {"causal": True, "offset_B": OFFSET},
            lambda b, t, s: s <= OFFSET[b] + t,
        ),
        ({"T": 3, "S": 5}, {"segments": (SEGMENTS[:, :3] * 0 + 7, SEGMENTS)}, lambda b, t, s: False),
    ],
    ids=[
        "causal",
        "all",
        "window",
        "offset",
        "segments",
        "packed",
        "grouped",
        "one-key-head",
        "all-masked",
    ],
)
def test_it_equals_the_loop(sizes, options, sees):
    q, k, v = inputs(**sizes)
    want = numpy_attention(q, k, v, sees, options.get("scale"))
    np.testing.assert_allclose(attention(q, k, v, **options), want, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@fast
def test_a_bias_is_added_to_the_scores():
    q, k, v = inputs(T=3, S=5, H=4, G=2)
    bias = np.random.default_rng(1).normal(size=(4, 3, 5)).astype(np.float32)
    want = numpy_attention(q, k, v, lambda b, t, s: True, bias=bias)
    np.testing.assert_allclose(attention(q, k, v, bias_HTS=bias), want, rtol=1e-5, atol=1e-6)


def masks(T: int, S: int) -> dict[str, AttentionMask]:
    random = np.random.default_rng(2)
    packed = jnp.asarray(np.sort(random.integers(1, 4, (2, T)), -1))
    padded = jnp.asarray(np.arange(S) < random.integers(1, S, (2, 1)), jnp.int32)
    return {
        "causal": AttentionMask(causal=True),
        "all": AttentionMask(),
        "window": AttentionMask(causal=True, window=9),
        "offset": AttentionMask(causal=True, offset_B=jnp.array([0, S - T])),
        "offset-window": AttentionMask(causal=True, window=5, offset_B=jnp.array([0, S - T])),
        "packed": AttentionMask(causal=True, segments=(packed, jnp.pad(packed, ((0, 0), (0, S - T))))),
        "padded": AttentionMask(segments=(jnp.ones((2, T), jnp.int32), padded)),
    }


@pytest.mark.parametrize("name", masks(4, 5))
@pytest.mark.parametrize(("T", "S", "H", "G"), first(1, [(50, 61, 4, 2), (7, 40, 2, 1), (48, 48, 4, 4)]))
def test_blockwise_equals_the_reference_in_values_and_gradients(name, T, S, H, G):
    q, k, v = inputs(T=T, S=S, H=H, G=G, D=8)
    mask = masks(T, S)[name]

    def value(implementation):
        return jax.jit(
            jax.value_and_grad(
                lambda q, k, v: (jnp.sin(implementation(q, k, v, mask, 0.3)) * jnp.arange(8)).mean(),
                (0, 1, 2),
            )
        )

    np.testing.assert_allclose(
        blockwise(q, k, v, mask, 0.3, size=16), reference(q, k, v, mask, 0.3), rtol=1e-5, atol=1e-5
    )
    for got, want in zip(
        value(partial(blockwise, size=16))(q, k, v)[1], value(reference)(q, k, v)[1], strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_long_sequences_take_the_blockwise_way_with_the_same_result():
    q, k, v = inputs(B=1, T=600, S=600, H=2, G=1, D=8)
    got = causal(q, k, v)
    np.testing.assert_allclose(
        got, reference(q, k, v, AttentionMask(causal=True), 8**-0.5), rtol=1e-5, atol=1e-5
    )


def temporary(implementation, T: int, size: int) -> int:
    shape = jax.ShapeDtypeStruct((1, T, 2, 16), jnp.float32)
    grad = jax.grad(
        lambda q, k, v: implementation(q, k, v, AttentionMask(causal=True), 0.25).sum(), (0, 1, 2)
    )
    return jax.jit(grad).lower(shape, shape, shape).compile().memory_analysis().temp_size_in_bytes


def test_the_memory_of_blockwise_attention_is_linear_in_length():
    small, large = (temporary(partial(blockwise, size=64), T, 64) for T in (512, 4096))
    assert large < 10 * small
    assert large < temporary(reference, 4096, 64) / 20


@pytest.mark.slow
@fast
def test_blocks_that_are_masked_are_not_computed():
    """What is in them would be visible as NaN: even a weight of 0 times NaN is NaN."""
    q, k, v = inputs(B=1, T=64, S=64, D=8)
    poisoned = v.at[:, 32:].set(jnp.nan)
    got = blockwise(q, k, poisoned, AttentionMask(causal=True), 0.3, size=16)
    assert np.isfinite(got[:, :32]).all()
    window = blockwise(q, k, v.at[:, :16].set(jnp.nan), AttentionMask(causal=True, window=4), 0.3, size=16)
    assert np.isfinite(window[:, 32:]).all()


@pytest.mark.slow
@fast
def test_large_scores_stay_finite():
    q, k, v = inputs(T=40, S=40)
    assert np.isfinite(causal(1e4 * q, 1e4 * k, v)).all()
    assert np.isfinite(blockwise(1e4 * q, 1e4 * k, v, AttentionMask(causal=True), 1.0, size=16)).all()


@pytest.mark.slow
@fast
def test_in_bfloat16_the_softmax_is_in_float32():
    """300 and 301 are one number in bfloat16, but two scores: the difference of 1 must reach the weights."""
    q = jnp.ones((1, 1, 1, 4), jnp.bfloat16) * 2
    k = jnp.stack([jnp.array([150, 150, 0, 0.0]), jnp.array([150, 150, 1, 0.0])])[None, :, None].astype(
        jnp.bfloat16
    )
    v = jnp.array([0.0, 1.0])[None, :, None, None].astype(jnp.bfloat16)
    got = attention(q, k, v)
    assert got.dtype == jnp.bfloat16
    assert float(got[0, 0, 0, 0]) == pytest.approx(1 / (1 + np.exp(-1)), rel=0.01)


@pytest.mark.slow
@fast
def test_a_tpu_gets_the_flash_kernel_and_a_short_sequence_does_not():
    q, k, v = (jax.ShapeDtypeStruct((2, 256, h, 64), jnp.float32) for h in (4, 2, 2))
    with lowered_for("tpu"):
        assert "pallas_call" in str(jax.make_jaxpr(partial(attention, causal=True))(q, k, v))
        short = [jax.ShapeDtypeStruct((2, 20, 4, 64), jnp.float32)] * 3
        assert "pallas_call" not in str(jax.make_jaxpr(partial(attention, causal=True))(*short))


@pytest.mark.slow
@fast
def test_a_gpu_gets_cudnn_for_16_bits(monkeypatch):
    asked = []
    monkeypatch.setattr(
        jax.nn, "dot_product_attention", lambda q, k, v, **options: asked.append(options) or q
    )
    with lowered_for("gpu"):
        x = jnp.zeros((1, 64, 2, 64), jnp.bfloat16)
        attention(x, x, x, causal=True, window=8)
        attention(x.astype(jnp.float32), x, x, causal=True)
    assert [options["implementation"] for options in asked] == ["cudnn"]
    assert (asked[0]["is_causal"], asked[0]["local_window_size"]) == (True, (7, 0))


@pytest.mark.slow
@fast
def test_cudnn_gets_even_lengths_and_the_added_position_is_masked(monkeypatch):
    own = jax.nn.dot_product_attention
    asked = []

    def by_xla(q, k, v, implementation, **options):
        asked.append((implementation, q.shape[1], k.shape[1]))
        return own(q, k, v, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    q, k, v = (
        jnp.asarray(np.random.default_rng(i).normal(size=(2, 17, 2, 8)), jnp.bfloat16) for i in range(3)
    )
    for causal in (False, True):
        with lowered_for("gpu"):
            ours = attention(q, k, v, causal=causal)
        want = own(q, k, v, is_causal=causal)
        np.testing.assert_allclose(ours.astype(jnp.float32), want.astype(jnp.float32), rtol=0.02, atol=0.02)
    assert asked == [("cudnn", 18, 18)] * 2


@fast
@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ({"H": 3, "G": 2}, {}, "got 3 query heads and 2 key/value heads; expected a multiple"),
        ({}, {"window": 3}, "got window=3 without causal=True; expected both"),
    ],
)
def test_impossible_arguments_are_refused(sizes, options, message):
    with pytest.raises(ValueError, match=message):
        attention(*inputs(**sizes), **options)


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(0, 4),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_the_result_has_the_shape_of_the_queries(B, H, T, more, D, W):
    q, k, v = (
        jax.ShapeDtypeStruct((B, n, H, d), jnp.float32) for n, d in ((T, D), (T + more, D), (T + more, W))
    )
    assert jax.eval_shape(attention, q, k, v).shape == (B, T, H, W)


@fast
@pytest.mark.parametrize("segmented", [False, True])
def test_the_band_whose_products_are_counted_is_the_definition(segmented):
    q, k, v = inputs(T=5, S=5, H=4, G=2)
    mask = AttentionMask(True, 3, None, (jnp.asarray(SEGMENTS),) * 2 if segmented else None)
    np.testing.assert_allclose(
        banded(q, k, v, mask, 0.4), reference(q, k, v, mask, 0.4), rtol=1e-5, atol=1e-6
    )
