"""Forecasting: squared error of the values that follow a history.

Dimensions: B windows, L steps of history, H of the horizon, T = L + H, C series, K known columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, init_from, known_of
from jaxmodels.tasks.requirements import finite, weights


def forecast(model: nn.Module) -> Task:
    """Mean squared error of model(history) on batches of "history" (BLC), "target" (BHC) and "weight" (BHC).

    Metrics are "loss", also named "mse", and "mae", over all values whose weight is above 0, in the units of
    the target. Where a batch has "known" (BTK), columns whose future is known, the model gets them as
    known_BTK. See jaxmodels.data.series_windows.
    """
    plain_init = init_from(model, "history")

    def init(key, batch):
        known = known_of(model, batch)
        if not known:
            return plain_init(key, batch)
        extra = dict(model.init(key, batch["history"], **known))
        return extra.pop("params"), extra

    def measure(params, extra, batch, keys_B):
        forecast_BHC, extra = _forecast(model, params, extra, batch, keys_B)
        counts_BHC = batch["weight"] > 0
        # A target that does not count may be nan, and 0 times its gradient would be nan too.
        target_BHC = jnp.where(counts_BHC, batch["target"], 0)
        error_BHC = jnp.where(counts_BHC, forecast_BHC.astype("float32") - target_BHC, 0)
        metrics = {
            "loss": Mean.of(error_BHC**2, batch["weight"]),
            "mae": Mean.of(abs(error_BHC), batch["weight"]),
        }
        return metrics, extra

    def loss(params, extra, batch, keys_B):
        metrics, extra = measure(params, extra, batch, keys_B)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, None)[0]

    def finish(metrics):
        return {**metrics, "mse": metrics["loss"]}

    def requires(batch, params, extra):
        forecast_BHC = jax.eval_shape(
            lambda p, e, b: _forecast(model, p, e, b, None)[0], params, extra, dict(batch)
        )
        shape = forecast_BHC.shape[1:]
        return {
            "history": finite("the values before", batch["history"].shape[1:], ()),
            "target": finite(f"what the model's {' x '.join(map(str, shape))} outputs are to be", shape),
            "weight": weights(shape),
            "known": finite("what is known ahead", where=()),
        }

    return Task(init, loss, evaluate, finish, requires=requires)


def forecasts(model: nn.Module) -> Callable[[Any, Any, Any], jax.Array]:
    """For Evaluation.predict: (params, extra, batch) to what the model says of the future, BHC."""
    return lambda params, extra, batch: _forecast(model, params, extra, batch, None)[0]


def _forecast(model: nn.Module, params: Any, extra: Any, batch: Any, keys_B: Any) -> tuple[jax.Array, Any]:
    known = known_of(model, batch)
    return apply(model, params, extra, batch["history"], keys_B, weight=batch.get("weight"), **known)
