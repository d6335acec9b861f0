"""The contract between a model with its loss and everything that trains, evaluates or samples it.

A `Task` is three pure functions, as an optax optimizer is two. A linen model gets one from `jaxmodels.tasks`;
a model in bare JAX, NNX or Equinox joins by writing the three functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Batch = Mapping[str, Any]  # arrays with a leading example axis; only the task and the data set know the keys
Params = Any  # pytree of the trained arrays
Extra = Any  # pytree of every other variable: batch statistics, a frozen teacher; {} for most models


class Mean(NamedTuple):
    """A weighted mean kept as sum and weight, so that it adds exactly over batches, micro-batches and devices."""

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


class Predictor(NamedTuple):
    """What `jaxmodels predict` needs to know of a model that reads files, such as pictures.

    read(path) gives the arrays of one example, without the example axis, prepared as in training.
    predict(params, extra, batch) gives a pytree of arrays with a leading example axis; it is compiled.
    report(prediction) gives what there is to say of one example, by name, fit for JSON.
    draw(path, prediction) gives the file's picture with the prediction drawn on it: uint8, height x width x
        3.
    """

    read: Callable[[Any], dict[str, Any]]
    predict: Callable[[Params, Any, Batch], Any]
    report: Callable[[Any], dict[str, Any]]
    draw: Callable[[Any, Any], Any]


class Display(NamedTuple):
    """What a report shows people of an example, where its arrays are not for people.

    input(x) gives an example's input, without the example axis, as its text, or as the bytes of a WAV file
        (see jaxmodels.data.formats.audio.wav) or of a PNG file. Pictures need none.
    classes() gives the names of the classes; it is called when a report is made, so it may read the data.
    """

    input: Callable[[Any], str | bytes] | None = None
    classes: Callable[[], Sequence[str]] | None = None


class Decoder(NamedTuple):
    """What decoding needs to know of an autoregressive model.

    read(params, extra, tokens_BT, count_B, length) gives (logits_BV of the token after the prompt, cache):
        the first count_B tokens of each row are its prompt; the cache has room for `length` tokens in all.
    write(params, extra, tokens_B, cache) gives (logits_BV of the next token, cache with these tokens).

    Every array of the cache has the batch as its second axis, so that beam search can reorder the rows.
    """

    read: Callable[[Params, Any, Array, Array, int], tuple[Array, Any]]
    write: Callable[[Params, Any, Array, Any], tuple[Array, Any]]
    encode: Callable[[str], Sequence[int]]
    decode: Callable[[Sequence[int]], str]
    length: int  # the most tokens that the model can see, or, with a source, write
    begin: int | None = None  # put before every prompt
    end: int | tuple[int, ...] | None = None  # ends a text; of several, any
    prompt: str = ""  # used where nobody gives one
    source: bool = False  # the prompt is a text to turn into another, not one to go on with

    @property
    def ends(self) -> tuple[int, ...]:
        """Every token that ends a text."""
        if isinstance(self.end, tuple):
            return self.end
        return () if self.end is None else (self.end,)
