"""Distributions against SciPy, teacher forcing against the loop that draws, and quantiles against counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.models.deepar import DeepAR
from jaxmodels.models.dlinear import DLinear
from jaxmodels.models.tcn import TCNForecaster
from jaxmodels.tasks import gaussian, negative_binomial, student_t
from jaxmodels.tasks.likelihood import futures, likelihood
from jaxmodels.tasks.quantiles import quantile_forecasts, quantiles


def windows(known: int = 0, B: int = 2, L: int = 6, H: int = 3, C: int = 2) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    count_BTC = random.poisson(6, (B, L + H, C)).astype(np.float32)
    batch = {
        "history": count_BTC[:, :L],
        "target": count_BTC[:, L:],
        "weight": np.ones((B, H, C), np.float32),
    }
    return batch | ({"known": random.normal(size=(B, L + H, known)).astype(np.float32)} if known else {})


def test_log_densities_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats", reason="needs SciPy")
    value = np.array([0.0, 3, 11])
    mean, spread, freedom = np.array([1.0, 4, 9]), np.array([0.3, 1, 2.5]), np.array([2.5, 4, 30])
    for module, parameters, want in (
        (gaussian, (mean, spread), stats.norm(mean, spread).logpdf(value)),
        (student_t, (mean, spread, freedom), stats.t(freedom, mean, spread).logpdf(value)),
        (negative_binomial, (mean, spread), stats.nbinom(1 / spread, 1 / (1 + spread * mean)).logpmf(value)),
    ):
        got = module.log_density(jnp.stack(parameters, -1), jnp.asarray(value))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("module", [gaussian, student_t, negative_binomial], ids=lambda m: m.__name__[17:])
def test_values_are_drawn_as_their_density_says(module):
    parameters = jnp.broadcast_to(jnp.array([5.0, 0.5, 6.0]), (20_000, 3))
    drawn = np.asarray(jax.jit(module.draw)(jax.random.key(0), parameters))
    variance = {gaussian: 0.25, student_t: 0.25 * 6 / 4, negative_binomial: 5 + 0.5 * 25}[module]
    assert abs(drawn.mean() - 5) < 5 * (variance / 20_000) ** 0.5
    assert abs(drawn.var() / variance - 1) < 0.1


def test_the_network_reads_the_targets_before_a_step_as_the_loop_does():
    batch = windows(known=2)
    model = DeepAR(3, "student_t", width=4, depth=2)
    params, _ = likelihood(model).init(jax.random.key(0), batch)
    known = {"known_BTK": batch["known"]}
    at_once = model.apply({"params": params}, batch["history"], **known, target_BHC=batch["target"])
    memory = model.apply({"params": params}, batch["history"], **known, method="read")
    for h in range(3):
        said, states = model.apply({"params": params}, memory, batch["known"][:, 6 + h], method="step")
        np.testing.assert_allclose(said, at_once[:, h], rtol=1e-4, atol=1e-5)
        memory = memory._replace(states=states, value_BC=batch["target"][:, h])


def test_the_likelihood_is_that_of_the_targets_with_a_weight():
    batch = windows()
    model = DeepAR(3, "gaussian", width=4, depth=1)
    task = likelihood(model)
    params, extra = task.init(jax.random.key(0), batch)
    said = np.asarray(model.apply({"params": params}, batch["history"], target_BHC=batch["target"]), float)
    density = -0.5 * ((batch["target"] - said[..., 0]) / said[..., 1]) ** 2
    density -= np.log(said[..., 1] * np.sqrt(2 * np.pi))
    mean = task.evaluate(params, extra, batch)["loss"]
    np.testing.assert_allclose(mean.total / mean.weight, -density.mean(), rtol=1e-4)
    batch["weight"][:, 2], batch["target"][:, 2] = 0, np.nan
    mean = task.evaluate(params, extra, batch)["loss"]
    np.testing.assert_allclose(mean.total / mean.weight, -density[:, :2].mean(), rtol=1e-4)


def test_futures_are_draws_of_the_first_steps_distribution_and_depend_on_no_other_window():
    batch = windows(known=1)
    model = DeepAR(3, "gaussian", width=4, depth=1)
    params, _ = likelihood(model).init(jax.random.key(0), batch)
    drawn_BSHC = np.asarray(jax.jit(futures(model, 4_000))(params, {}, batch))
    assert drawn_BSHC.shape == (2, 4_000, 3, 2)
    variables, known = {"params": params}, {"known_BTK": batch["known"]}
    first_BCP = np.asarray(model.apply(variables, batch["history"], **known))[:, 0]
    error_BC = abs(drawn_BSHC[:, :, 0].mean(1) - first_BCP[..., 0])
    assert (error_BC < 5 * first_BCP[..., 1] / 4_000**0.5).all()
    alone = futures(model, 3)(params, {}, {name: x[1:] for name, x in batch.items()})
    both = futures(model, 3)(params, {}, batch)
    np.testing.assert_allclose(alone[0], both[1], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="known columns for 3 steps ahead; expected 5"):
        futures(model, 2, horizon=5)(params, {}, batch)


def test_counts_and_levels_that_are_none_and_models_of_points_are_refused():
    batch = windows()
    required = likelihood(DeepAR(3, "negative_binomial")).requires(batch, None, None)["target"]
    assert required.wrong({"target": np.array([1.0, 1.5])}).tolist() == [False, True] and required.low == 0
    with pytest.raises(ValueError, match="got DLinear; expected a model whose outputs are the parameters"):
        likelihood(DLinear(3))
    with pytest.raises(ValueError, match="rising ones between 0 and 1"):
        quantiles(DLinear(3), (0.5, 0.1))
    task = quantiles(TCNForecaster(3, 2), (0.1, 0.5, 0.9))
    params, extra = task.init(jax.random.key(0), batch)
    with pytest.raises(ValueError, match=r"shape \(3, 2, 2\); expected \(horizon, series, 3\)"):
        task.requires(batch, params, extra)


def test_the_quantile_loss_is_least_at_the_quantiles_and_forecasts_rise():
    import flax.linen as nn

    class Constant(nn.Module):
        @nn.compact
        def __call__(self, history_BLC, keys_B=None):
            level_Q = self.param("levels", nn.initializers.zeros, (3,))
            return jnp.broadcast_to(level_Q, (len(history_BLC), 1, 1, 3))

    target = np.random.default_rng(0).exponential(size=(999, 1, 1)).astype(np.float32)
    batch = {"history": np.zeros((999, 2, 1), np.float32), "target": target, "weight": np.ones_like(target)}
    levels = (0.1, 0.5, 0.9)
    task = quantiles(Constant(), levels)
    wanted = np.quantile(target, levels)

    def loss(level_Q):
        mean = task.evaluate({"levels": level_Q}, {}, batch)["loss"]
        return float(mean.total / mean.weight)

    for q in range(3):
        step = np.eye(3)[q] * 0.05
        assert loss(wanted) < min(loss(wanted - step), loss(wanted + step))
    params = {"levels": jnp.array([2.0, 0.0, 1.0])}
    assert quantile_forecasts(Constant())(params, {}, batch)[0, 0, 0].tolist() == [0, 1, 2]
