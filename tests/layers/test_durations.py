"""Phonemes repeated by durations, and splines read backwards."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.layers.durations import LEAST, repeated, spline_inverse

pytestmark = pytest.mark.fast

RANDOM = np.random.default_rng(0)


def test_each_phoneme_is_repeated_as_often_as_it_lasts():
    x_BSC = RANDOM.normal(size=(3, 4, 2)).astype(np.float32)
    duration_BS = np.array([[2, 0, 1, 3], [0, 0, 0, 0], [1, 4, 0, 0]], np.int32)
    y_BTC, segments_BT = repeated(jnp.asarray(x_BSC), jnp.asarray(duration_BS), 7)
    for x_SC, duration_S, y_TC, segments_T in zip(x_BSC, duration_BS, y_BTC, segments_BT, strict=True):
        want = np.repeat(x_SC, duration_S, 0)
        np.testing.assert_array_equal(y_TC[: len(want)], want)
        assert not np.any(y_TC[len(want) :])
        assert segments_T.tolist() == [1] * len(want) + [0] * (7 - len(want))
    short_BTC, segments_BT = repeated(jnp.asarray(x_BSC), jnp.asarray(duration_BS), 3)
    np.testing.assert_array_equal(short_BTC, y_BTC[:, :3])
    assert segments_BT.sum(1).tolist() == [3, 0, 3]


def spline(x, width_K, height_K, slope_K, bound):
    """A rational-quadratic spline of one number in float64, by arXiv:1906.04032, equation 4."""
    K = len(width_K)
    size = [
        2 * bound * (LEAST + (1 - LEAST * K) * np.exp(part) / np.exp(part).sum())
        for part in (width_K, height_K)
    ]
    knot_x, knot_y = (np.concatenate([[0], np.cumsum(part)]) - bound for part in size)
    slope = np.concatenate([[1], LEAST + np.log1p(np.exp(slope_K)), [1]])
    if not -bound <= x <= bound:
        return x
    k = min(np.searchsorted(knot_x, x, side="right") - 1, K - 1)
    s = size[1][k] / size[0][k]
    t = (x - knot_x[k]) / size[0][k]
    above = size[1][k] * (s * t**2 + slope[k] * t * (1 - t))
    return knot_y[k] + above / (s + (slope[k] + slope[k + 1] - 2 * s) * t * (1 - t))


def test_the_inverse_of_a_spline_is_its_inverse_within_the_bounds_and_beyond():
    bound, K = 2.0, 5
    parts = [RANDOM.normal(size=(40, n)) for n in (K, K, K - 1)]
    x = np.concatenate([RANDOM.uniform(-bound, bound, 34), [-7.5, 3.0, -bound, bound, 0.0, 2.0001]])
    y = np.array([spline(value, *(part[i] for part in parts), bound) for i, value in enumerate(x)])
    assert np.abs(y - x).max() > 0.5
    got = jax.jit(spline_inverse, static_argnums=4)(
        *(jnp.asarray(v, jnp.float32) for v in (y, *parts)), bound
    )
    np.testing.assert_allclose(got, x, atol=2e-4)
