"""Masked language modelling: the model predicts tokens that are masked or changed (arXiv:1810.04805).

A model here has, besides its call, `hidden(tokens_BT, keys_B, segments_BT)`, which gives x_BTN, and
`table()`, the matrix (V, N) whose product with x is the logits.
Dimensions: B batch, T tokens, N width of what the logits are products of, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.keys import fold, per_example
from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import init_from
from jaxmodels.tasks.cross_entropy import cross_entropy, with_perplexity
from jaxmodels.tasks.requirements import segments, tokens, weights


def corrupt(
    keys_B: jax.Array, tokens_BT: jax.Array, open_BT: jax.Array, *, mask: int, vocabulary: int, rate: float
) -> tuple[jax.Array, jax.Array]:
    """(tokens, chosen), BT: each open token is chosen with probability `rate`.

    Of the chosen, 80 % become `mask`, 10 % any token of the vocabulary and 10 % stay (section 3.1).
    """

    def row(key, tokens_T):
        choose, change, draw = jax.random.split(key, 3)
        T = len(tokens_T)
        return (
            jax.random.uniform(choose, (T,)) < rate,
            jax.random.uniform(change, (T,)),
            jax.random.randint(draw, (T,), 0, vocabulary, tokens_T.dtype),
        )

    chosen_BT, change_BT, drawn_BT = jax.vmap(row)(keys_B, tokens_BT)
    chosen_BT &= open_BT
    new_BT = jnp.where(change_BT < 0.8, mask, jnp.where(change_BT < 0.9, drawn_BT, tokens_BT))
    return jnp.where(chosen_BT, new_BT, tokens_BT).astype(tokens_BT.dtype), chosen_BT


def token_keys(tokens_BT: jax.Array, real_BT: jax.Array | None = None) -> jax.Array:
    """One key for each row, a function of its real tokens alone: a text is always masked in the same way."""
    T = tokens_BT.shape[1]
    # Odd factors that differ by position, so that the order matters; sums wrap around.
    factor_T = jnp.asarray(np.arange(T, dtype=np.uint64) * 2654435769 * 2 + 1, jnp.uint32)
    mixed_BT = (tokens_BT.astype(jnp.uint32) + 1) * factor_T
    mixed_BT ^= mixed_BT >> 15
    if real_BT is not None:
        mixed_BT *= real_BT
    sum_B = (mixed_BT * jnp.uint32(2246822519)).sum(1, dtype=jnp.uint32)
    return per_example(jax.random.key(0), sum_B)


def masked(
    model: nn.Module, *, mask: int, vocabulary: int, special: Sequence[int] = (), rate: float = 0.15
) -> Task:
    """Cross-entropy in nats of the chosen tokens, on batches of inputs (BT, int) and weight (BT, or B).

    The example's key chooses other tokens each time (RoBERTa, arXiv:1907.11692, section 4.1); in evaluation
    the tokens themselves do. special: tokens that are never chosen, such as those that begin, end and pad a
    text. A token of weight 0 is not chosen. Where a batch has "segments" (BT, int), a token attends only to
    its own segment, and 0 is padding, which is never chosen; else it attends to tokens of weight above 0.
    """

    def texts(batch: Any) -> jax.Array:
        if "segments" in batch:
            return batch["segments"]
        weight_BT = batch["weight"].reshape(len(batch["inputs"]), -1) > 0
        return jnp.broadcast_to(weight_BT, batch["inputs"].shape).astype(jnp.int32)

    def measure(params: Any, extra: Any, batch: Any, corrupt_keys_B: Any, keys_B: Any) -> dict[str, Mean]:
        tokens_BT = batch["inputs"]
        weight_BT = jnp.broadcast_to(batch["weight"].reshape(len(tokens_BT), -1), tokens_BT.shape)
        segments_BT = texts(batch)
        open_BT = (
            (weight_BT > 0) & (segments_BT != 0) & ~jnp.isin(tokens_BT, jnp.asarray(special, tokens_BT.dtype))
        )
        inputs_BT, chosen_BT = corrupt(
            corrupt_keys_B, tokens_BT, open_BT, mask=mask, vocabulary=vocabulary, rate=rate
        )
        variables = {"params": params, **extra}
        x_BTN: Any = model.apply(variables, inputs_BT, keys_B, segments_BT, method="hidden")
        table_VN: Any = model.apply(variables, method="table")
        loss, accuracy = cross_entropy(x_BTN, table_VN, tokens_BT, weight_BT * chosen_BT)
        return {"loss": loss, "accuracy": accuracy}

    def loss(params, extra, batch, keys_B):
        metrics = measure(params, extra, batch, fold(keys_B, 2**18), keys_B)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, token_keys(batch["inputs"], texts(batch) != 0), None)

    def requires(batch, params, extra):
        table_VN = jax.eval_shape(lambda p, e: model.apply({"params": p, **e}, method="table"), params, extra)
        V, shape = table_VN.shape[0], batch["inputs"].shape[1:]
        if vocabulary > V or not 0 <= mask < V:
            raise ValueError(
                f"masked: got mask={mask} and vocabulary={vocabulary} for a model of {V:,} tokens; expected "
                "a token of the model's and no more tokens than it has. Give those of the model's tokenizer."
            )
        return {"inputs": tokens(V, (), shape), "weight": weights(None), "segments": segments(shape)}

    return Task(init_from(model, "inputs", called=False), loss, evaluate, with_perplexity, requires=requires)
