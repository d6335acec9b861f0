"""A linen module as pure functions of (params, extra)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

TRAIN_FLAGS = ("train", "training", "is_training")
FLAGS = (
    *TRAIN_FLAGS,
    "deterministic",
    "use_running_average",
    "eval_mode",
)  # arguments of a call that are no keys


def init_from(
    model: nn.Module, inputs: str, method: str | None = None, *, called: bool = True
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Task.init of a model whose method, by default its call, takes batch[inputs]: (params, extra).

    called: whether the task trains by the model's call, which then has to take keys.
    """
    if isinstance(model, type):
        raise ValueError(
            f"the task's model: got the class {model.__name__} itself; expected a model. Make one: "
            f"{model.__name__}(...)"
        )
    if called:
        _check_call(model)

    def init(key, batch):
        extra = dict(model.init(key, batch[inputs], method=method))
        extra.pop("losses", None)  # sown values are no state
        return extra.pop("params"), extra

    return init


def _check_call(model: Any) -> None:
    """Raises where a linen model's call cannot take (inputs, keys_B), as those of other libraries."""
    if not isinstance(model, nn.Module):
        return
    arguments = [*inspect.signature(type(model).__call__).parameters.values()][1:]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in arguments if p.kind in (*kinds, inspect.Parameter.VAR_POSITIONAL)]
    takes_two = len(positional) > 1 or any(p.kind is p.VAR_POSITIONAL for p in positional)
    if takes_two and not (len(positional) > 1 and positional[1].name in FLAGS):
        return
    name = type(model).__name__
    flag = next((p.name for p in arguments if p.name in FLAGS), "")
    option = f", {'train' if flag in TRAIN_FLAGS else 'evaluate'}={flag!r}" if flag else ""
    raise ValueError(
        f"the task's model: got {name}, whose call takes "
        f"{', '.join(p.name for p in arguments) or 'nothing'}; expected one that takes inputs and keys_B, a "
        "random key for each example while training and None to evaluate. Wrap it: "
        f"jaxmodels.layers.linen.from_linen({name}(...){option})"
    )


def call_options(batch: Any) -> dict[str, Any]:
    """Arguments of `apply` from a batch that has them: "segments" (BT, int; 0 is padding) and "weight"."""
    options = {"segments_BT": batch["segments"]} if "segments" in batch else {}
    return {**options, "weight": batch["weight"]} if "weight" in batch else options


def known_of(model: nn.Module, batch: Any) -> dict[str, Any]:
    """The argument known_BTK from a batch that has "known", columns whose future is known."""
    if "known" not in batch:
        return {}
    if "known_BTK" not in inspect.signature(type(model).__call__).parameters:
        raise ValueError(
            f'got a batch with "known" for {type(model).__name__}; expected a model whose call takes '
            "known_BTK. Leave out the known columns, or take a model that reads them"
        )
    return {"known_BTK": batch["known"]}


def table_sizes(
    run: Callable[[Any, Any, Any], Any], params: Any, extra: Any, batch: Any
) -> tuple[Any, dict[str, int]]:
    """(shapes of run(params, extra, batch), by key of the batch the rows of the table that it indexes).

    For Task.requires: nothing is computed. A key counts if its array goes into an nn.Embed unchanged.
    """
    rows: dict[str, int] = {}

    def traced(params, extra, batch):
        def record(call, args, kwargs, context):
            if isinstance(context.module, nn.Embed) and context.method_name == "__call__":
                size = context.module.num_embeddings
                for key, x in batch.items():
                    if args and args[0] is x:
                        rows[key] = min(size, rows.get(key, size))
            return call(*args, **kwargs)

        with nn.intercept_methods(record):
            return run(params, extra, batch)

    return jax.eval_shape(traced, params, extra, dict(batch)), rows


def check_outputs(outputs: jax.Array, expected: str) -> jax.Array:
    """The outputs; a ValueError unless they have as many axes as expected, such as "(N, classes)"."""
    if outputs.ndim != expected.count(",") + 1:
        shape = ", ".join(["N", *map(str, outputs.shape[1:])]) + "," * (outputs.ndim == 1)
        raise ValueError(
            f"the task's model: got outputs of the shape ({shape}); expected {expected}. Let the model end "
            "in such outputs, by a mean over positions or a dense layer."
        )
    return outputs


def apply(
    model: nn.Module,
    params: Any,
    extra: Any,
    inputs: jax.Array,
    keys_B: jax.Array | None,
    *,
    weight: jax.Array | None = None,
    **options: Any,
):
    """(outputs, extra) of the model. With keys it trains, and may change every collection of extra.

    Floating inputs are cast to the type of the parameters, so that mixed precision reaches the first layer
    too.
    weight: of the examples (B first). Examples of weight 0 do not count in the statistics of batch
    normalisation, in any module of the model; where no example counts, extra does not change.
    """
    if "segments_BT" in options and "segments_BT" not in inspect.signature(type(model).__call__).parameters:
        raise ValueError(
            f'got a batch with "segments", where 0 is padding, for {type(model).__name__}; expected a model '
            "whose call takes segments_BT, or padding would be read as tokens. Do add segments_BT=None to "
            "its call, and leave out positions where it is 0."
        )
    if jnp.issubdtype(inputs.dtype, jnp.floating):
        inputs = inputs.astype(jax.tree.leaves(params)[0].dtype)
    variables = {"params": params, **extra}
    if keys_B is None or not extra:
        return model.apply(variables, inputs, keys_B, **options), extra
    if weight is None:
        return model.apply(variables, inputs, keys_B, **options, mutable=list(extra))
    real_B = (weight.reshape(len(weight), -1) > 0).any(-1)
    any_real = real_B.any()
    with nn.intercept_methods(_masked(real_B | ~any_real)):  # the mean of no example would be nan
        outputs, changed = model.apply(variables, inputs, keys_B, **options, mutable=list(extra))
    return outputs, jax.tree.map(lambda new, old: jnp.where(any_real, new, old), changed, dict(extra))


def _masked(real_B: jax.Array) -> Callable[..., Any]:
    """For nn.intercept_methods: batch normalisation takes its statistics from these rows alone."""

    def masked(call, args, kwargs, context):
        if (
            isinstance(context.module, nn.BatchNorm)
            and context.method_name == "__call__"
            and kwargs.get("mask") is None
        ):
            rows, B = len(args[0]), len(real_B)
            if rows % B:
                raise ValueError(
                    f"{'/'.join(context.module.path)}: got {rows} rows to normalise of {B} examples; "
                    "expected as many rows for each example, one after the other. Keep the examples on the "
                    "first axis."
                )
            mask = jnp.repeat(real_B, rows // B).reshape(rows, *(1,) * (args[0].ndim - 1))
            kwargs = {**kwargs, "mask": mask}
        return call(*args, **kwargs)

    return masked
