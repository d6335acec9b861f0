"""Regression: squared error.

Dimensions: B batch, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxmodels import choices
from jaxmodels.interfaces import Input, Predictor
from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, call_options, init_from, table_sizes
from jaxmodels.tasks.requirements import finite, inputs_of, segments, weights


def regress(model: nn.Module, *, inputs: str = "features", scale: float = 1.0) -> Task:
    """Mean squared error of model(batch[inputs]), B or BK, on batches of inputs, target (B or BK) and weight.

    scale: units of the target for each unit that the model is trained on; "rmse" and "mae" are given in the
    target's units. Where a batch has "segments" (BT, int; 0 is padding), the model gets them as segments_BT.
    """

    def measure(output_BK: Any, batch: Any) -> dict[str, Mean]:
        if output_BK.ndim == 1:
            output_BK = output_BK[:, None]
        counts_B = (batch["weight"] > 0).reshape(-1, *(1,) * (output_BK.ndim - 1))
        # A target that does not count may be nan, and 0 times its gradient would be nan too.
        target_BK = jnp.where(counts_B, batch["target"].reshape(output_BK.shape), 0)
        error_BK = jnp.where(counts_B, output_BK.astype("float32") - target_BK, 0)
        return {
            "loss": Mean.of((error_BK**2).mean(-1), batch["weight"]),
            "mae": Mean.of(abs(error_BK).mean(-1) * scale, batch["weight"]),
        }

    def loss(params, extra, batch, keys_B):
        output_BK, extra = apply(model, params, extra, batch[inputs], keys_B, **call_options(batch))
        metrics = measure(output_BK, batch)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        output_BK, _ = apply(model, params, extra, batch[inputs], None, **call_options(batch))
        return measure(output_BK, batch)

    def finish(metrics):
        return {**metrics, "rmse": math.sqrt(metrics["loss"]) * scale}

    def requires(batch, params, extra):
        def run(params, extra, batch):
            return apply(model, params, extra, batch[inputs], None, **call_options(batch))[0]

        output_BK, tables = table_sizes(run, params, extra, batch)
        shape = output_BK.shape[1:]
        if "target" in batch and math.prod(batch["target"].shape[1:]) == math.prod(shape):
            shape = batch["target"].shape[1:]
        return {
            inputs: inputs_of(batch[inputs], tables.get(inputs)),
            "target": finite(f"what the model's {math.prod(shape)} outputs are to be", shape),
            "weight": weights(),
            "segments": segments(),
        }

    return Task(init_from(model, inputs), loss, evaluate, finish, requires=requires)


def predictor(
    model: nn.Module,
    targets: Sequence[str],
    *,
    read: Callable[[Any], dict[str, np.ndarray]],
    inputs: str = "features",
    scale: float = 1.0,
    mean: float = 0.0,
    input: Input = "row",
    fields: Sequence[str] = (),
    settings: Callable[[], Mapping[str, Any]] = dict,
) -> Predictor:
    """The Predictor of a regression, for `jaxmodels predict`.

    targets: the name of each output. read(x): a row, or another input, as the arrays of one example, prepared
        as in training. input, fields, settings: see Predictor.
    scale, mean: the model's output times scale, plus mean, is the target, in its own units.
    """
    choices.check("regress.predictor", "input", input, Input)

    def predict(params, extra, batch):
        output_BK, _ = apply(model, params, extra, batch[inputs], None, **call_options(batch))
        return output_BK.reshape(output_BK.shape[0], -1).astype("float32") * scale + mean

    def report(target_K):
        return {name: float(value) for name, value in zip(targets, target_K, strict=True)}

    def described():
        return {"targets": [*targets], **settings()}

    return Predictor(read, predict, report, None, input, tuple(fields), described)
