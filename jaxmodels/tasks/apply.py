"""A linen module as pure functions of (params, extra): the one place where tasks touch flax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def init_from(model: nn.Module, inputs: str, method: str | None = None) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Task.init of a model whose method, by default its call, sees batch[inputs]: (params, extra)."""

    def init(key, batch):
        extra = dict(model.init(key, batch[inputs], method=method))
        extra.pop("losses", None)  # what a model sows is no state
        return extra.pop("params"), extra

    return init


def beside(batch: Any) -> dict[str, Any]:
    """What a model is given beside its inputs: a batch's "segments" (BT, int; 0 is padding), if any, as segments_BT."""
    return {"segments_BT": batch["segments"]} if "segments" in batch else {}


def looked_up(run: Callable[[Any, Any, Any], Any], params: Any, extra: Any, batch: Any) -> tuple[Any, dict[str, int]]:
    """(shapes of run(params, extra, batch), the rows of the table in which a key's numbers are looked up, by key).

    For Task.requires: nothing is computed. A key counts whose array goes into an nn.Embed as it is.
    """
    rows: dict[str, int] = {}

    def traced(params, extra, batch):
        def see(call, args, kwargs, context):
            if isinstance(context.module, nn.Embed) and context.method_name == "__call__":
                for key, x in batch.items():
                    if args and args[0] is x:
                        rows[key] = min(context.module.num_embeddings, rows.get(key, context.module.num_embeddings))
            return call(*args, **kwargs)

        with nn.intercept_methods(see):
            return run(params, extra, batch)

    return jax.eval_shape(traced, params, extra, dict(batch)), rows


def apply(model: nn.Module, params: Any, extra: Any, inputs: jax.Array, keys_B: jax.Array | None, **options: Any):
    """(outputs, extra) of the model. With keys it trains: it uses them and may change every collection of extra.

    Floating inputs take the type of the parameters, so that mixed precision reaches the first layer too.
    """
    if jnp.issubdtype(inputs.dtype, jnp.floating):
        inputs = inputs.astype(jax.tree.leaves(params)[0].dtype)
    variables = {"params": params, **extra}
    if keys_B is None or not extra:
        return model.apply(variables, inputs, keys_B, **options), extra
    return model.apply(variables, inputs, keys_B, **options, mutable=list(extra))
