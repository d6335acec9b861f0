"""Causal attention against loops in NumPy. Dimensions: as in jaxmodels/layers/attention.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.layers.attention import causal_attention

pytestmark = pytest.mark.fast

attend = jax.jit(causal_attention)


def inputs(B=2, T=4, S=4, H=3, D=5, seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(size=(B, n, H, D)).astype(np.float32) for n in (T, S, S)]


def numpy_attention(q_BTHD, k_BSHD, v_BSHD, position):
    """Equation 1 of arXiv:1706.03762, one query of one head at a time."""
    out = np.zeros(q_BTHD.shape)
    B, T, H, D = q_BTHD.shape
    for b, t, h in np.ndindex(B, T, H):
        seen = position + t + 1
        scores = [np.dot(q_BTHD[b, t, h], k_BSHD[b, s, h]) / D**0.5 for s in range(seen)]
        weights = np.exp(scores) / np.exp(scores).sum()
        out[b, t, h] = sum(w * v_BSHD[b, s, h] for s, w in enumerate(weights))
    return out


@pytest.mark.parametrize(("T", "S", "position"), [(4, 4, 0), (1, 6, 5), (2, 6, 3), (1, 1, 0)])
def test_it_equals_the_loop(T, S, position):
    q, k, v = inputs(T=T, S=S)
    np.testing.assert_allclose(attend(q, k, v, position), numpy_attention(q, k, v, position), rtol=1e-5, atol=1e-6)


def test_a_query_sees_no_later_key():
    q, k, v = inputs()
    later_k, later_v = k.copy(), v.copy()
    later_k[:, 2:], later_v[:, 2:] = 1e4, -1e4
    before, after = attend(q, k, v), attend(q, later_k, later_v)
    np.testing.assert_array_equal(after[:, :2], before[:, :2])
    assert not np.allclose(after[:, 2:], before[:, 2:])


def test_no_question_gives_the_mean_of_what_is_seen():
    q, k, v = inputs()
    means = np.cumsum(v, axis=1) / np.arange(1, 5)[:, None, None]
    np.testing.assert_allclose(attend(np.zeros_like(q), k, v), means, rtol=1e-5, atol=1e-6)


def test_large_scores_stay_finite():
    q, k, v = inputs()
    assert np.isfinite(attend(1e4 * q, 1e4 * k, v)).all()


def test_in_bfloat16_the_softmax_is_in_float32():
    """300 and 301 are one number in bfloat16, but two scores: the difference of 1 must reach the weights."""
    q = jnp.ones((1, 1, 1, 4), jnp.bfloat16) * 2
    k = jnp.stack([jnp.array([150, 150, 0, 0.0]), jnp.array([150, 150, 1, 0.0])])[None, :, None].astype(jnp.bfloat16)
    v = jnp.array([0.0, 1.0])[None, :, None, None].astype(jnp.bfloat16)
    got = attend(q, k, v, 1)
    assert got.dtype == jnp.bfloat16
    assert float(got[0, 0, 0, 0]) == pytest.approx(1 / (1 + np.exp(-1)), rel=0.01)


@given(st.integers(0, 3), st.integers(1, 3), st.integers(1, 5), st.integers(0, 4), st.integers(1, 3), st.integers(1, 4))
def test_the_result_has_the_shape_of_the_queries(B, H, T, more, D, W):
    q, k, v = (jax.ShapeDtypeStruct((B, n, H, d), jnp.float32) for n, d in ((T, D), (T + more, D), (T + more, W)))
    assert jax.eval_shape(causal_attention, q, k, v, more).shape == (B, T, H, W)
