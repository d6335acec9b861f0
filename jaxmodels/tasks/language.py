"""Language modelling: predict the next token.

Dimensions: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import optax

from jaxmodels.task import Decoder, Mean, Task
from jaxmodels.tasks.apply import apply, init_from


def next_token(model: nn.Module, *, bytes_per_token: float | None = None) -> Task:
    """Cross-entropy in nats of model(inputs) on batches of inputs, targets (BT, int) and weight (BT).

    bytes_per_token: adds "bits_per_byte" = loss / ln 2 / bytes_per_token; 1 where tokens are bytes.
    """

    def measure(logits_BTV: Any, batch: Any) -> dict[str, Mean]:
        logits_BTV = logits_BTV.astype("float32")
        loss_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTV, batch["targets"])
        metrics = {"loss": Mean.of(loss_BT, batch["weight"])}
        metrics["accuracy"] = Mean.of(logits_BTV.argmax(-1) == batch["targets"], batch["weight"])
        return metrics

    def loss(params, extra, batch, keys_B):
        logits_BTV, extra = apply(model, params, extra, batch["inputs"], keys_B)
        metrics = measure(logits_BTV, batch)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        logits_BTV, _ = apply(model, params, extra, batch["inputs"], None)
        return measure(logits_BTV, batch)

    def finish(metrics):
        if bytes_per_token:
            metrics = {**metrics, "bits_per_byte": metrics["loss"] / math.log(2) / bytes_per_token}
        return {**metrics, "perplexity": math.exp(min(metrics["loss"], 700.0))}

    return Task(init_from(model, "inputs"), loss, evaluate, finish)


def decoder(
    model: Any,
    *,
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[Sequence[int]], str],
    begin: int | None = None,
    end: int | None = None,
    prompt: str = "",
) -> Decoder:
    """What `jaxmodels generate` needs of a model that has `length`, `start(batch, length)` and a cache argument."""

    def step(params, extra, tokens_BT, cache):
        return model.apply({"params": params, **extra}, tokens_BT, None, cache)

    return Decoder(model.start, step, encode, decode, model.length, begin, end, prompt)
