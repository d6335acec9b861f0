"""Extractive question answering: the answer is a span of the context (arXiv:1810.04805, section 4.2).

Dimensions: B batch, T tokens, S first and E last tokens of spans.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, init_from
from jaxmodels.tasks.ranking import first

NEVER = -1e30  # a logit; finite, so that a row without context has no NaN


def span(model: nn.Module) -> Task:
    """Cross-entropy of the answer's first and last token, its mean over both, on batches of examples.

    A batch has inputs (BT, int), segments (BT, 0 is padding), types (BT, int), context (BT, whether the answer may lie
    there), start and end (B, places of the answer's first and last token) and weight (B, 0 where there is no answer).
    accuracy: both places are right.
    """

    def measure(logits_BT2: Any, batch: Any) -> dict[str, Mean]:
        logs_BT2 = jax.nn.log_softmax(_possible(logits_BT2, batch), axis=1)
        place_B2 = jnp.stack([batch["start"], batch["end"]], -1)
        loss_B = -jnp.take_along_axis(logs_BT2, place_B2[:, None], 1)[:, 0].mean(-1)
        right_B = first(logs_BT2.swapaxes(1, 2), place_B2).all(-1)
        return {name: Mean.of(x_B, batch["weight"]) for name, x_B in (("loss", loss_B), ("accuracy", right_B))}

    def loss(params, extra, batch, keys_B):
        logits_BT2, extra = _logits(model, params, extra, batch, keys_B)
        metrics = measure(logits_BT2, batch)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(_logits(model, params, extra, batch, None)[0], batch)

    return Task(init_from(model, "inputs"), loss, evaluate)


def predict(model: nn.Module, *, longest: int = 30) -> Callable[[Any, Any, Any], dict[str, jax.Array]]:
    """(params, extra, batch) to start, end (B) and score (B) of the best span of at most `longest` tokens.

    The score is the sum of the two logits, which compares the windows of one context.
    """

    def best(params, extra, batch):
        logits_BT2 = _possible(_logits(model, params, extra, batch, None)[0], batch)
        T = logits_BT2.shape[1]
        length_SE = jnp.arange(T)[None] - jnp.arange(T)[:, None] + 1
        score_BSE = logits_BT2[:, :, None, 0] + logits_BT2[:, None, :, 1]
        score_BSE = jnp.where((length_SE >= 1) & (length_SE <= longest), score_BSE, 4 * NEVER)
        flat_B = score_BSE.reshape(len(score_BSE), -1)
        place_B = flat_B.argmax(-1)
        return {"start": place_B // T, "end": place_B % T, "score": flat_B.max(-1)}

    return best


def _logits(model: nn.Module, params: Any, extra: Any, batch: Any, keys_B: Any) -> tuple[Any, Any]:
    options = {"segments_BT": batch["segments"], "types_BT": batch["types"]}
    return apply(model, params, extra, batch["inputs"], keys_B, **options)


def _possible(logits_BT2: jax.Array, batch: Any) -> jax.Array:
    return jnp.where(batch["context"][..., None] > 0, logits_BT2.astype(jnp.float32), NEVER)


def normalise(text: str) -> str:
    """The text without case, punctuation, articles and extra spaces, as SQuAD's official script compares answers."""
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def f1(prediction: str, answer: str) -> float:
    """Harmonic mean of precision and recall of the answer's words."""
    got, want = normalise(prediction).split(), normalise(answer).split()
    common = sum((Counter(got) & Counter(want)).values())
    if not common:
        return 0.0
    precision, recall = common / len(got), common / len(want)
    return 2 * precision * recall / (precision + recall)


def score(predictions: Mapping[str, str], answers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """exact_match and f1 in percent, as SQuAD v1.1's official script: the best over a question's answers.

    Both by question; a question without a prediction counts 0. (Rajpurkar et al., arXiv:1606.05250, section 6.1)
    """
    if not answers:
        raise ValueError("score: came no answers; wanted some by question: look whether the data is empty")
    exact = total = 0.0
    for question, known in answers.items():
        if question in predictions:
            got = predictions[question]
            exact += max(normalise(got) == normalise(answer) for answer in known)
            total += max(f1(got, answer) for answer in known)
    return {"exact_match": 100 * exact / len(answers), "f1": 100 * total / len(answers)}
