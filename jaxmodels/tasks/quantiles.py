"""Forecasts as quantiles: the loss whose minimum is the quantile (Koenker and Bassett, 1978).

Dimensions: B windows, L steps of history, H of the horizon, C series, Q levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, known_of
from jaxmodels.tasks.requirements import finite, weights


def quantiles(model: nn.Module, levels: Sequence[float]) -> Task:
    """Mean quantile loss of model(history), BHCQ, on batches as those of tasks.forecast.

    levels: between 0 and 1, rising: for each output the share of values that are to be below it. The loss is
    (y - q) level above the quantile q and (q - y) (1 - level) below, averaged over levels; twice that is the
    CRPS as levels become many. The metric "mae" is that of the output nearest to the median.
    """
    level_Q = np.array(levels, np.float32)
    if not len(level_Q) or not (np.diff([0, *level_Q, 1]) > 0).all():
        raise ValueError(
            f"quantiles: got the levels {list(levels)}; expected rising ones between 0 and 1. Give those."
        )
    middle = int(abs(level_Q - 0.5).argmin())

    def init(key, batch):
        extra = dict(model.init(key, batch["history"], None, **known_of(model, batch)))
        return extra.pop("params"), extra

    def measure(params, extra, batch, keys_B):
        quantile_BHCQ, extra = _quantiles(model, params, extra, batch, keys_B)
        counts_BHC = batch["weight"] > 0
        # A target that does not count may be nan, and 0 times its gradient would be nan too.
        target_BHC = jnp.where(counts_BHC, batch["target"], 0).astype(jnp.float32)
        above_BHCQ = target_BHC[..., None] - quantile_BHCQ.astype(jnp.float32)
        loss_BHCQ = jnp.maximum(level_Q * above_BHCQ, (level_Q - 1) * above_BHCQ)
        loss_BHC = jnp.where(counts_BHC, loss_BHCQ.mean(-1), 0)
        mae_BHC = jnp.where(counts_BHC, abs(above_BHCQ[..., middle]), 0)
        metrics = {"loss": Mean.of(loss_BHC, batch["weight"]), "mae": Mean.of(mae_BHC, batch["weight"])}
        return metrics, extra

    def loss(params, extra, batch, keys_B):
        metrics, extra = measure(params, extra, batch, keys_B)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, None)[0]

    def requires(batch, params, extra):
        said = jax.eval_shape(lambda p, e, b: _quantiles(model, p, e, b, None)[0], params, extra, dict(batch))
        if said.ndim != 4 or said.shape[-1] != len(level_Q):
            raise ValueError(
                f"quantiles: got outputs of the shape {said.shape[1:]}; expected (horizon, series, "
                f"{len(level_Q)}), one for each level. Give the model as many outputs."
            )
        shape = said.shape[1:3]
        return {
            "history": finite("the values before", batch["history"].shape[1:], ()),
            "target": finite(f"what the model's {' x '.join(map(str, shape))} outputs are to be", shape),
            "weight": weights(shape),
            "known": finite("what is known ahead", where=()),
        }

    return Task(init, loss, evaluate, requires=requires)


def quantile_forecasts(model: nn.Module) -> Callable[[Any, Any, Any], jax.Array]:
    """For Evaluation.predict: (params, extra, batch) to rising quantiles of each window, BHCQ."""
    return lambda params, extra, batch: jnp.sort(_quantiles(model, params, extra, batch, None)[0], -1)


def _quantiles(model: nn.Module, params: Any, extra: Any, batch: Any, keys_B: Any) -> tuple[jax.Array, Any]:
    known = known_of(model, batch)
    return apply(model, params, extra, batch["history"], keys_B, weight=batch.get("weight"), **known)
