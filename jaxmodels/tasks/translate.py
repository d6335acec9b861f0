"""Sequence to sequence: one text becomes another, such as its translation or its summary.

Or a sound becomes a text: then the source is frames of features, BSF.

A model here has `encode(source_BS, keys_B, segments_BS)`, which gives memory_BSM, `hidden(target_BT,
memory_BSM, source_segments_BS, keys_B, cache, count_B, segments_BT)`, which gives (x_BTM, cache), `table()`,
the matrix (V, M) whose product with x is the logits, `start(batch, length)`, an empty cache, and `length`,
the most tokens that it generates.
Dimensions: B batch, S tokens of the source, T of the target, M width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.interfaces import Decoder
from jaxmodels.task import Mean, Task
from jaxmodels.tasks.cross_entropy import cross_entropy, with_perplexity
from jaxmodels.tasks.requirements import inputs_of, segments, tokens, weights


def translate(model: nn.Module, *, smoothing: float = 0.0) -> Task:
    """Cross-entropy in nats of a target's next token.

    Batches have source (BS, or BSF of frames), inputs, targets and weight (all BT).

    The inputs are the targets shifted right by one, after a token that begins. Where a batch has
    "source_segments" (BS, int), no query attends to positions that are 0 there: no token is padding by
    itself. With "segments" (BT, int) too, several pairs are packed into a row: a target attends to itself and
    the source of the same segment. A token of weight 0 does not count.
    smoothing: this part of each target's probability is spread over the vocabulary (arXiv:1512.00567, section
    7), in the training loss alone.
    """

    def init(key: Any, batch: Any) -> tuple[Any, Any]:
        extra = dict(model.init(key, batch["source"], batch["inputs"]))
        return extra.pop("params"), extra

    def measure(params: Any, extra: Any, batch: Any, keys_B: Any, smoothing: float) -> dict[str, Mean]:
        variables, segments_BS = {"params": params, **extra}, batch.get("source_segments")
        memory_BSM = model.apply(variables, batch["source"], keys_B, segments_BS, method="encode")
        inputs = (batch["inputs"], memory_BSM, segments_BS, keys_B, None, None, batch.get("segments"))
        x_BTM, _ = model.apply(variables, *inputs, method="hidden")
        table_VM: Any = model.apply(variables, method="table")
        weighted = (batch["targets"], batch["weight"])
        loss, accuracy = cross_entropy(x_BTM, table_VM, *weighted, smoothing=smoothing)
        return {"loss": loss, "accuracy": accuracy}

    def loss(params, extra, batch, keys_B):
        metrics = measure(params, extra, batch, keys_B, smoothing)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, None, 0.0)

    def requires(batch, params, extra):
        table_VM = jax.eval_shape(lambda p, e: model.apply({"params": p, **e}, method="table"), params, extra)
        V, source, target = table_VM.shape[0], batch["source"].shape[1:], batch["inputs"].shape[1:]
        return {
            "source": tokens(V, (), source) if len(source) == 1 else inputs_of(batch["source"], None),
            "inputs": tokens(V, (), target),
            "targets": tokens(V, ("weight",), target),
            "weight": weights(target),
            "source_segments": segments(source[:1]),
            "segments": segments(target),
        }

    return Task(init, loss, evaluate, with_perplexity, requires=requires)


def decoder(
    model: Any,
    *,
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[Sequence[int]], str],
    begin: int,
    end: int | tuple[int, ...],
    prompt: str = "",
) -> Decoder:
    """The Decoder of a model that generates a target for a source. begin: the token before every target."""

    def logits(params, extra, tokens_B, memory_BSM, segments_BS, cache):
        variables = {"params": params, **extra}
        inputs = (tokens_B[:, None], memory_BSM, segments_BS, None, cache)
        x_B1M, cache = model.apply(variables, *inputs, method="hidden")
        return x_B1M[:, 0] @ model.apply(variables, method="table").astype(x_B1M.dtype).T, cache

    def read(params, extra, tokens_BS, count_B, length):
        segments_BS = (jnp.arange(tokens_BS.shape[1]) < count_B[:, None]).astype(jnp.int32)
        memory_BSM = model.apply({"params": params, **extra}, tokens_BS, None, segments_BS, method="encode")
        begin_B = jnp.full(len(tokens_BS), begin, jnp.int32)
        return logits(params, extra, begin_B, memory_BSM, segments_BS, model.start(len(tokens_BS), length))

    def write(params, extra, tokens_B, cache):
        return logits(params, extra, tokens_B, None, None, cache)

    def all_logits(params, extra, batch):
        variables, segments_BS = {"params": params, **extra}, batch["source_segments"]
        memory_BSM = model.apply(variables, batch["source"], None, segments_BS, method="encode")
        x_BTM, _ = model.apply(variables, batch["tokens"], memory_BSM, segments_BS, method="hidden")
        return x_BTM @ model.apply(variables, method="table").astype(x_BTM.dtype).T

    return Decoder(
        read, write, encode, decode, model.length, begin, end, prompt, source=True, logits=all_logits
    )
