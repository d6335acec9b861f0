"""The temporal convolutional network against torch's convolutions, and what it may not see."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxmodels.models.tcn import TCN, TCNForecaster

X = np.random.default_rng(0).normal(size=(2, 12, 3)).astype(np.float32)


def test_a_block_is_two_dilated_causal_convolutions_with_weight_normalisation():
    torch = pytest.importorskip("torch", reason="needs torch")
    functional = torch.nn.functional
    model = TCN(2, widths=(4, 4), kernel=3)
    variables = model.init(jax.random.key(0), X)
    params = jax.tree.map(
        lambda p: np.random.default_rng(p.size).normal(size=p.shape).astype(np.float32), variables["params"]
    )
    x_BCT = torch.tensor(X).swapaxes(1, 2)
    for n in range(2):
        y_BWT = x_BCT
        for i in range(2):
            p = params[f"conv_{n}_{i}"]
            v_WCK = torch.tensor(p["kernel"]).permute(2, 1, 0)
            weight = torch._weight_norm(v_WCK, torch.tensor(p["scale"])[:, None, None], 0)
            padded = functional.pad(y_BWT, (2 * 2**n, 0))
            y_BWT = functional.conv1d(padded, weight, torch.tensor(p["bias"]), dilation=2**n).relu()
        if n == 0:
            shortcut = params["shortcut_0"]
            kernel = torch.tensor(shortcut["kernel"]).T[..., None]
            x_BCT = functional.conv1d(x_BCT, kernel, torch.tensor(shortcut["bias"]))
        x_BCT = (x_BCT + y_BWT).relu()
    head = params["head"]
    want = x_BCT.swapaxes(1, 2).numpy() @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(model.apply({"params": params}, X), want, rtol=2e-4, atol=1e-4)


def test_an_output_sees_itself_and_the_steps_of_its_receptive_field_before():
    model = TCN(1, widths=(4, 4), kernel=2)  # 2 (2 - 1) (4 - 1) steps before
    params = jax.tree.map(lambda p: abs(p) + 0.1, model.init(jax.random.key(0), abs(X)))

    def output(x):
        return model.apply(params, x)[0, 9, 0]

    seen_T = abs(jax.grad(output)(abs(X))[0]).sum(-1)
    assert np.flatnonzero(seen_T).tolist() == list(range(3, 10))


def test_a_forecast_follows_the_level_and_the_scale_of_each_history():
    model = TCNForecaster(3, outputs=2, widths=(4,), dropout=0.0)
    variables = model.init(jax.random.key(0), X)
    plain, moved = model.apply(variables, X), model.apply(variables, 10 * X + 100)
    assert plain.shape == (2, 3, 3, 2)
    np.testing.assert_allclose(moved, 10 * plain + 100, rtol=1e-3)
