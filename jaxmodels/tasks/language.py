"""Language modelling: predict the next token.

A model here has, besides its call, `hidden(tokens_BT, keys_B, cache, count_B, segments_BT)`, which gives
(x_BTM, cache), `table()`, the matrix (V, M) whose product with x is the logits, or None where x are the
logits, `start(batch, length)`, an empty cache, and `length`; training asks for the first two.
Dimensions: B batch, T tokens, M width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.interfaces import Decoder
from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import init_from
from jaxmodels.tasks.cross_entropy import cross_entropy, with_perplexity
from jaxmodels.tasks.requirements import segments, tokens, weights


def next_token(model: nn.Module, *, bytes_per_token: float | None = None, smoothing: float = 0.0) -> Task:
    """Cross-entropy in nats of the next token on batches of inputs, targets (BT, int) and weight (BT).

    Where a batch has "segments" (BT, int), a token attends only to its own segment: documents packed into one
    row.
    A token of weight 0 does not count in the loss: padding, or the questions of instruction data. Values that
    a model sows into the collection "losses", one for each example, are added to the loss of each of its
    tokens.
    bytes_per_token: adds "bits_per_byte" = loss / ln 2 / bytes_per_token; 1 where tokens are bytes.
    """

    def measure(
        params: Any, extra: Any, batch: Any, keys_B: Any, smoothing: float
    ) -> tuple[Mean, dict[str, Mean]]:
        variables = {"params": params, **extra}
        # A model's sums over a row, such as the load of experts, stop at the last token that counts.
        count_B = None if "segments" in batch else ends(batch["weight"])
        inputs = (batch["inputs"], keys_B, None, count_B, batch.get("segments"))
        (x_BTM, _), sown = model.apply(variables, *inputs, method="hidden", mutable=["losses"])
        table_VM: Any = model.apply(variables, method="table")
        weight_BT = batch["weight"]
        loss, accuracy = cross_entropy(x_BTM, table_VM, batch["targets"], weight_BT, smoothing=smoothing)
        metrics = {"loss": loss, "accuracy": accuracy}
        if sown:
            sown_B = sum_of(sown["losses"], len(weight_BT))
            metrics["auxiliary"] = Mean.of(jnp.broadcast_to(sown_B[:, None], weight_BT.shape), weight_BT)
            loss = Mean(loss.total + metrics["auxiliary"].total, loss.weight)
        return loss, metrics

    def loss(params, extra, batch, keys_B):
        total, metrics = measure(params, extra, batch, keys_B, smoothing)
        return total, extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, None, 0.0)[1]

    def finish(metrics):
        if bytes_per_token:
            metrics = {**metrics, "bits_per_byte": metrics["loss"] / math.log(2) / bytes_per_token}
        return with_perplexity(metrics)

    def requires(batch, params, extra):
        table_VM = jax.eval_shape(lambda p, e: model.apply({"params": p, **e}, method="table"), params, extra)
        shape = batch["inputs"].shape[1:]
        if table_VM is None:

            def logits(p, e, x):
                return model.apply({"params": p, **e}, x, method="hidden")[0]

            V = jax.eval_shape(logits, params, extra, batch["inputs"]).shape[-1]
        else:
            V = table_VM.shape[0]
        return {
            "inputs": tokens(V, (), shape),
            "targets": tokens(V, ("weight",), shape),
            "weight": weights(shape),
            "segments": segments(shape),
        }

    return Task(init_from(model, "inputs", called=False), loss, evaluate, finish, requires=requires)


def ends(weight_BT: Any) -> Any:
    """The length of each row up to its last token of weight above 0; B."""
    return ((weight_BT > 0) * jnp.arange(1, weight_BT.shape[1] + 1)).max(1)


def sum_of(losses: Any, batch: int) -> Any:
    """All sown losses of each example, over layers and names; B."""
    return sum(x.reshape(-1, batch).sum(0) for x in jax.tree.leaves(losses))


def decoder(
    model: Any,
    *,
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[Sequence[int]], str],
    begin: int | None = None,
    end: int | tuple[int, ...] | None = None,
    prompt: str = "",
) -> Decoder:
    """The Decoder of a language model, for `jaxmodels generate`."""

    def extend(params, extra, tokens_BT, count_B, cache, index_BN=None):
        variables = {"params": params, **extra}
        x_BNM, cache = model.apply(variables, tokens_BT, None, cache, count_B, method="hidden")
        if index_BN is not None:
            x_BNM = jnp.take_along_axis(x_BNM, index_BN[:, :, None], 1)
        return x_BNM @ model.apply(variables, method="table").astype(x_BNM.dtype).T, cache

    def read(params, extra, tokens_BT, count_B, length):
        cache = model.start(len(tokens_BT), length)
        logits_B1V, cache = extend(params, extra, tokens_BT, count_B, cache, count_B[:, None] - 1)
        return logits_B1V[:, 0], cache

    def write(params, extra, tokens_B, cache):
        logits_B1V, cache = extend(params, extra, tokens_B[:, None], jnp.ones_like(tokens_B), cache)
        return logits_B1V[:, 0], cache

    def logits(params, extra, batch):
        variables = {"params": params, **extra}
        x_BTM, _ = model.apply(variables, batch["tokens"], method="hidden")
        return x_BTM @ model.apply(variables, method="table").astype(x_BTM.dtype).T

    return Decoder(read, write, encode, decode, model.length, begin, end, prompt, False, extend, logits)
