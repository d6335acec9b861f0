"""DLinear against the paper's equations in NumPy."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxmodels.models.dlinear import DLinear
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.forecast import forecast

pytestmark = pytest.mark.fast


@pytest.mark.slow
def test_it_maps_the_moving_average_and_what_is_left_to_the_future():
    x = np.random.default_rng(0).normal(size=(2, 9, 3)).astype(np.float32)
    known = np.random.default_rng(1).normal(size=(2, 13, 2)).astype(np.float32)
    model = DLinear(4, kernel=5)
    params = model.init(jax.random.key(0), x, None, known)["params"]
    params = jax.tree.map(lambda p: np.random.default_rng(2).normal(size=p.shape).astype(np.float32), params)
    got = model.apply({"params": params}, x, None, known)
    for b in range(2):
        for c in range(3):
            padded = np.array([x[b, 0, c]] * 2 + list(x[b, :, c]) + [x[b, -1, c]] * 2)
            trend = np.array([padded[t : t + 5].mean() for t in range(9)])
            want = trend @ params["trend"]["kernel"] + params["trend"]["bias"]
            want += (x[b, :, c] - trend) @ params["remainder"]["kernel"] + params["remainder"]["bias"]
            want += known[b, 9:] @ params["known"]["kernel"][:, c]
            np.testing.assert_allclose(got[b, :, c], want, rtol=2e-4, atol=1e-5)


def test_an_even_moving_average_and_known_columns_for_a_model_without_them_are_refused():
    x = np.zeros((1, 8, 1), np.float32)
    with pytest.raises(ValueError, match="moving average of 4 steps; expected an odd number"):
        DLinear(2, kernel=4).init(jax.random.key(0), x)
    batch = {"history": x, "known": np.zeros((1, 10, 1), np.float32)}
    with pytest.raises(ValueError, match='got a batch with "known" for MLP'):
        forecast(MLP((3,), 2)).init(jax.random.key(0), batch)
