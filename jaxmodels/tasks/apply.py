"""A linen module as pure functions of (params, extra): the one place where tasks touch flax."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

FLAGS = (
    "train",
    "training",
    "is_training",
    "deterministic",
    "use_running_average",
    "eval_mode",
)  # of a call, not keys


def init_from(
    model: nn.Module, inputs: str, method: str | None = None, *, called: bool = True
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Task.init of a model whose method, by default its call, sees batch[inputs]: (params, extra).

    called: whether the task trains by its call, which then has to take keys.
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
        extra.pop("losses", None)  # what a model sows is no state
        return extra.pop("params"), extra

    return init


def _check_call(model: Any) -> None:
    """Raises where a linen model's call cannot take (inputs, keys_B), as most that were not written for this library."""
    if not isinstance(model, nn.Module):
        return
    own = [*inspect.signature(type(model).__call__).parameters.values()][1:]
    placed = [p for p in own if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    two = len(placed) > 1 or any(p.kind is p.VAR_POSITIONAL for p in placed)
    if two and not (len(placed) > 1 and placed[1].name in FLAGS):
        return
    name = type(model).__name__
    flag = next((p.name for p in own if p.name in FLAGS), "")
    given = f", {'evaluate' if flag in FLAGS[3:] else 'train'}={flag!r}" if flag else ""
    raise ValueError(
        f"the task's model: got {name}, whose call takes {', '.join(p.name for p in own) or 'nothing'}; "
        "expected one that takes inputs and keys_B, a random key for each example while training and None "
        f"to evaluate. Wrap it: jaxmodels.layers.linen.from_linen({name}(...){given})"
    )


def call_options(batch: Any) -> dict[str, Any]:
    """What `apply` is given of a batch, if any: "segments" (BT, int; 0 is padding) as segments_BT, and "weight"."""
    options = {"segments_BT": batch["segments"]} if "segments" in batch else {}
    return {**options, "weight": batch["weight"]} if "weight" in batch else options


def table_sizes(
    run: Callable[[Any, Any, Any], Any], params: Any, extra: Any, batch: Any
) -> tuple[Any, dict[str, int]]:
    """(shapes of run(params, extra, batch), the rows of the table in which a key's numbers are looked up, by key).

    For Task.requires: nothing is computed. A key counts whose array goes into an nn.Embed as it is.
    """
    rows: dict[str, int] = {}

    def traced(params, extra, batch):
        def see(call, args, kwargs, context):
            if isinstance(context.module, nn.Embed) and context.method_name == "__call__":
                for key, x in batch.items():
                    if args and args[0] is x:
                        rows[key] = min(
                            context.module.num_embeddings, rows.get(key, context.module.num_embeddings)
                        )
            return call(*args, **kwargs)

        with nn.intercept_methods(see):
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
    """(outputs, extra) of the model. With keys it trains: it uses them and may change every collection of extra.

    Floating inputs take the type of the parameters, so that mixed precision reaches the first layer too.
    weight: of the examples (B first). Those of weight 0 count in no statistics of batch normalisation,
    whatever module of the model has it; where no example counts, extra stays as it was.
    """
    if "segments_BT" in options and "segments_BT" not in inspect.signature(type(model).__call__).parameters:
        raise ValueError(
            f'got a batch with "segments", where 0 is padding, for {type(model).__name__}; expected a model whose call '
            "takes segments_BT, or padding would be read as tokens. Do add segments_BT=None to its call, "
            "and leave out positions where it is 0"
        )
    if jnp.issubdtype(inputs.dtype, jnp.floating):
        inputs = inputs.astype(jax.tree.leaves(params)[0].dtype)
    variables = {"params": params, **extra}
    if keys_B is None or not extra:
        return model.apply(variables, inputs, keys_B, **options), extra
    if weight is None:
        return model.apply(variables, inputs, keys_B, **options, mutable=list(extra))
    real_B = (weight.reshape(len(weight), -1) > 0).any(-1)
    some = real_B.any()
    with nn.intercept_methods(_masked(real_B | ~some)):  # the mean of no example would be nan
        outputs, changed = model.apply(variables, inputs, keys_B, **options, mutable=list(extra))
    return outputs, jax.tree.map(lambda new, old: jnp.where(some, new, old), changed, dict(extra))


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
