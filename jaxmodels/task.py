"""The contract between a model with its loss and everything that trains, evaluates or samples it.

A `Task` is three pure functions, as an optax optimizer is two. A linen model gets one from `jaxmodels.tasks`;
a model in bare JAX, NNX or Equinox joins by writing the three functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Batch = Mapping[str, Any]  # arrays with a leading example axis; only the task and the data set know the keys
Params = Any  # pytree of the trained arrays
Extra = Any  # pytree of every other variable: batch statistics, a frozen teacher; {} for most models


class Mean(NamedTuple):
    """A weighted mean kept as sum and weight, so that it adds exactly over batches and devices."""

    total: Array
    weight: Array

    @classmethod
    def of(cls, values: Array, weight: Array) -> Mean:
        """The mean of values under weights of the same (or a broadcastable leading) shape, summed in float32.

        A value with weight 0 does not count, not even when it is not finite.
        """
        values = jnp.asarray(values, jnp.float32)
        weight = jnp.asarray(weight, jnp.float32)
        weight = jnp.broadcast_to(
            weight.reshape(weight.shape + (1,) * (values.ndim - weight.ndim)), values.shape
        )
        return cls(jnp.sum(jnp.where(weight > 0, values, 0.0) * weight), jnp.sum(weight))

    def __add__(self, other: Mean) -> Mean:  # type: ignore[override]
        return Mean(self.total + other.total, self.weight + other.weight)


def value(mean: Mean) -> float:
    """The mean as a Python float; nan where nothing was counted."""
    return float(mean.total) / float(mean.weight) if float(mean.weight) else float("nan")


class Requirement(NamedTuple):
    """What a batch must hold under a key, so that a wrong value is refused in words before the model sees it.

    what: a phrase for the values, such as "the model's 3 classes". do: what helps where they are others.
    low, high: bounds, both allowed; without them any float passes, nan too.
    shape: of one example; None is any.
    where: keys whose values say which rows, or elements, count: those above 0 under each. Others may hold
        anything.
    wrong(batch): for what no bound says: which elements are wrong, as a bool array over the key's first axes.
        NumPy.
    """

    what: str
    do: str
    integer: bool = False
    low: float = -math.inf
    high: float = math.inf
    shape: tuple[int, ...] | None = None
    where: tuple[str, ...] = ()
    wrong: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None


def _nothing(batch: Batch, params: Params, extra: Extra) -> dict[str, Requirement]:
    return {}


def _unchanged(metrics: dict[str, float]) -> dict[str, float]:
    return metrics


def _as_they_are(params: Params, extra: Extra) -> tuple[Params, Extra]:
    return params, extra


class Task(NamedTuple):
    """What to learn, as pure functions.

    init(key, batch) gives (params, extra). `batch` holds zeros of the right shapes and types.
    loss(params, extra, batch, keys_B) gives (Mean, extra, metrics): training. There is one random key for
        each example, so that no result depends on how a batch is divided over devices or micro-batches.
    evaluate(params, extra, batch) gives metrics: deterministic; no example sees another, padding (weight 0)
    counts nowhere. finish(metrics) runs on the host, on finished means: adds what is a function of means,
    such as a perplexity. examine(params, extra, batch) gives, where a task has it, what a report shows of
    each example, as arrays with a leading
        example axis: "probability" of each class, the true "label", and the "input", for pictures or Display;
        of padded texts "segments" too, 0 where the input is padding, which nobody is shown.
    unwrap(params, extra) gives the (params, extra) of the model itself, where a wrapper such as `lora` trains
        others: what a Predictor, a Decoder and Evaluation.predict get. A wrapper of a task unwraps as far as
        itself, then calls the task's.
    requires(batch, params, extra) gives what the keys of a batch must hold, by key, from shapes and types
        alone (all three as jax.eval_shape gives them). It is checked on the host, where the data is read; see
        jaxmodels.training.check_batches.

    Under mixed precision `params` come in bfloat16: cast the inputs to match, and give Means of float32.
    """

    init: Callable[[Array, Batch], tuple[Params, Extra]]
    loss: Callable[[Params, Extra, Batch, Array], tuple[Mean, Extra, dict[str, Mean]]]
    evaluate: Callable[[Params, Extra, Batch], dict[str, Mean]]
    finish: Callable[[dict[str, float]], dict[str, float]] = _unchanged
    examine: Callable[[Params, Extra, Batch], dict[str, Array]] | None = None
    unwrap: Callable[[Params, Extra], tuple[Params, Extra]] = _as_they_are
    requires: Callable[[Batch, Params, Extra], Mapping[str, Requirement]] = _nothing
