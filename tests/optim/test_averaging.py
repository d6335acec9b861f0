"""Averaged parameters are evaluated with their own extra, such as statistics of batch normalisation."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import Experiment, Options, optim
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.parallel import rules
from jaxmodels.parallel.compile import PMAP_AXIS, compile_step
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.parallel.placement import put_batch
from jaxmodels.runs.folder import Folder
from jaxmodels.step import eval_variables, init, make_step
from jaxmodels.task import value
from jaxmodels.tasks.lora import lora
from jaxmodels.tasks.regress import regress
from jaxmodels.training import runner

pytestmark = pytest.mark.fast

MOMENTUM, DECAY, STEPS, B, I = 0.8, 0.7, 4, 8, 3


class Net(nn.Module):
    @nn.compact
    def __call__(self, x_BI, keys_B=None):
        x_BF = nn.Dense(2, use_bias=False, name="dense")(x_BI)
        return nn.Dense(1)(nn.BatchNorm(keys_B is None, momentum=MOMENTUM, name="norm")(x_BF))


TASK = regress(Net())
EMA = optim.with_ema(optim.sgd(0.3), DECAY, warmup=False)


def arrays(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(2.0, 3.0, (n, I)).astype(np.float32)
    return {"features": x, "target": x.sum(1), "weight": np.ones(n, np.float32)}


def experiment(**changes) -> Experiment:
    made = Experiment(
        task=TASK,
        optimizer=EMA,
        train=ArrayPipeline(arrays(32), batch=B, seed=0),
        evals={"test": ArrayPipeline(arrays(16, 1), batch=B)},
        steps=STEPS,
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.slow
def test_the_statistics_are_the_running_means_of_the_averaged_network_on_the_training_batches():
    data = experiment().train
    state, step = init(TASK, EMA, 0, data.rows(0, 0, B)), jax.jit(make_step(TASK, EMA))
    average = np.asarray(state.params["dense"]["kernel"])
    mean, var, trained = np.zeros(2), np.ones(2), np.zeros(2)
    for n in range(STEPS):
        x = data.rows(n, 0, B)["features"]
        trained = MOMENTUM * trained + (1 - MOMENTUM) * (
            x @ np.asarray(state.params["dense"]["kernel"])
        ).mean(0)
        state, _ = step(state, data.rows(n, 0, B))
        average = DECAY * average + (1 - DECAY) * np.asarray(state.params["dense"]["kernel"])
        mean = MOMENTUM * mean + (1 - MOMENTUM) * (x @ average).mean(0)
        var = MOMENTUM * var + (1 - MOMENTUM) * (x @ average).var(0)
    params, extra = eval_variables(EMA, state)
    np.testing.assert_allclose(params["dense"]["kernel"], average, rtol=1e-5)
    np.testing.assert_allclose(extra["batch_stats"]["norm"]["mean"], mean, rtol=1e-4)
    np.testing.assert_allclose(extra["batch_stats"]["norm"]["var"], var, rtol=1e-4)
    np.testing.assert_allclose(state.extra["batch_stats"]["norm"]["mean"], trained, rtol=1e-4)
    assert np.abs(mean - trained).max() > 0.05  # they differ, so the test can see which it was


@pytest.mark.slow
def test_what_runs_evaluate_and_keep_is_the_average_with_its_statistics(tmp_path):
    whole = runner.run(experiment(), Options())
    params, extra = eval_variables(EMA, whole.state)
    want = value(TASK.evaluate(params, extra, arrays(16, 1))["loss"])
    assert whole.metrics["test/loss"] == pytest.approx(want, rel=1e-5)
    assert want != pytest.approx(
        value(TASK.evaluate(params, whole.state.extra, arrays(16, 1))["loss"]), rel=1e-3
    )
    with pytest.raises(runner.Interrupted):
        runner.run(experiment(), Options(stop_at=2), folder=Folder(tmp_path, keep=2))
    again = runner.run(experiment(), Options(), folder=Folder(tmp_path, keep=2))
    jax.tree.map(np.testing.assert_array_equal, again.state.averaged, whole.state.averaged)
    assert again.metrics == whole.metrics


def stepped(mode: str, axes: str, accumulate: int = 1):
    state, batch = init(TASK, EMA, 0, arrays(B)), arrays(B)
    mesh = make_mesh(axes)
    step = make_step(TASK, EMA, accumulate=accumulate, axis=PMAP_AXIS if mode == "pmap" else None)
    shardings = rules.state_shardings(state, mesh)
    compiled = compile_step(lambda s, _, b: step(s, b), mode, mesh, shardings, leading=0, donate=False)
    moving = put_batch(lambda start, stop: {name: x[start:stop] for name, x in batch.items()}, B, mesh)
    return jax.device_get(compiled(jax.device_put(state, shardings), {}, moving)[0]._replace(key=None))


@pytest.mark.slow
def test_devices_share_the_statistics_of_the_averages_as_they_do_those_of_training():
    one = stepped("jit", "data=1")

    def close(a, b):
        return np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)

    jax.tree.map(close, stepped("jit", "data=4").averaged, one.averaged)
    parts = stepped("pmap", "data=2")
    kernel = np.asarray(eval_variables(EMA, parts)[0]["dense"]["kernel"])
    halves = np.split(
        arrays(B)["features"] @ kernel, 2
    )  # under pmap each device has the statistics of its part
    want = 0.2 * np.mean([half.var(0) for half in halves], 0) + 0.8
    np.testing.assert_allclose(parts.averaged["batch_stats/norm/var"], want, rtol=1e-4)
    np.testing.assert_allclose(
        parts.averaged["batch_stats/norm/mean"], 0.2 * np.mean(halves, (0, 1)), rtol=1e-4
    )


@pytest.mark.slow
def test_micro_batches_come_in_turn():
    got = stepped("jit", "data=1", accumulate=2)
    x = arrays(B)["features"] @ np.asarray(eval_variables(EMA, got)[0]["dense"]["kernel"])
    mean = np.zeros(2)
    for part in (x[0::2], x[1::2]):
        mean = MOMENTUM * mean + (1 - MOMENTUM) * part.mean(0)
    np.testing.assert_allclose(got.averaged["batch_stats/norm/mean"], mean, rtol=1e-4)


@pytest.mark.slow
def test_nothing_is_kept_twice_where_nothing_is_averaged_or_extra_stays_as_it_is():
    assert init(TASK, optim.sgd(0.1), 0, arrays(B)).averaged == {}
    frozen = TASK._replace(
        init=lambda key, batch: (TASK.init(key, batch)[0], {}),
        loss=lambda params, extra, batch, keys_B: (value, {}, {}),
    )
    assert init(frozen, EMA, 0, arrays(B)).averaged == {}
    kept = init(lora(TASK, rank=1, alpha=1.0, paths="dense/kernel"), EMA, 0, arrays(B)).averaged
    assert sorted(kept) == ["batch_stats/norm/mean", "batch_stats/norm/var"]  # and not LoRA's base


@pytest.mark.slow
def test_a_batch_that_is_not_finite_leaves_the_statistics():
    state, step = init(TASK, EMA, 0, arrays(B)), jax.jit(make_step(TASK, EMA, on_nan="skip"))
    state, _ = step(state, arrays(B))
    broken = arrays(B) | {"features": np.full((B, I), np.nan, np.float32)}
    after, _ = step(state, broken)
    assert int(after.faults) == 1 and bool(jnp.isfinite(after.averaged["batch_stats/norm/mean"]).all())
    jax.tree.map(np.testing.assert_array_equal, after.averaged, state.averaged)


@pytest.mark.slow
def test_a_step_of_ones_own_that_forgets_the_averages_statistics_is_refused():
    def forgetful(*arguments, **options):
        step = make_step(*arguments, **options)

        def forgets(state, batch):
            new, metrics = step(state, batch)
            return new._replace(averaged=state.averaged), metrics

        return forgets

    with pytest.raises(ValueError, match=r"leaves State\.averaged as it was"):
        runner.run(experiment(make_step=forgetful), Options(mesh="data=1"))
    runner.run(experiment(make_step=make_step), Options(mesh="data=1"))
