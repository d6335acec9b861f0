"""Extractive question answering: the answer is a span of the context (arXiv:1810.04805, section 4.2).

A model may have the attribute `types`, its number of types of tokens.
Dimensions: B batch, T tokens, S first and E last tokens of spans.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.interfaces import Predictor
from jaxmodels.task import Mean, Requirement, Task
from jaxmodels.tasks.apply import apply, init_from, table_sizes
from jaxmodels.tasks.ranking import first
from jaxmodels.tasks.requirements import inputs_of, segments, weights

LETTERS = 40  # of a token of an answer, at most
NEVER = -1e30  # a logit; finite, so that a row without context has no NaN


def question_answering(model: nn.Module) -> Task:
    """Cross-entropy of the answer's first and last token, averaged over the two, on batches of examples.

    A batch has inputs (BT, int), segments (BT, 0 is padding), types (BT, int), context (BT, whether the
    answer may lie there), start and end (B, positions of the answer's first and last token) and weight (B, 0
    where there is no answer).
    accuracy: both positions are right.
    """

    def measure(logits_BT2: Any, batch: Any) -> dict[str, Mean]:
        logs_BT2 = jax.nn.log_softmax(_possible(logits_BT2, batch), axis=1)
        position_B2 = jnp.stack([batch["start"], batch["end"]], -1)
        loss_B = -jnp.take_along_axis(logs_BT2, position_B2[:, None], 1)[:, 0].mean(-1)
        right_B = first(logs_BT2.swapaxes(1, 2), position_B2).all(-1)
        return {"loss": Mean.of(loss_B, batch["weight"]), "accuracy": Mean.of(right_B, batch["weight"])}

    def loss(params, extra, batch, keys_B):
        logits_BT2, extra = _logits(model, params, extra, batch, keys_B)
        metrics = measure(logits_BT2, batch)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(_logits(model, params, extra, batch, None)[0], batch)

    def requires(batch, params, extra):
        def run(params, extra, batch):
            return _logits(model, params, extra, batch, None)[0]

        _, tables = table_sizes(run, params, extra, batch)
        shape = batch["inputs"].shape[1:]
        position = Requirement(
            f"the answer's position among the {shape[0]} tokens of a row, where 'context' is 1, the start "
            "not after the end",
            "Cut the row around the answer, or give a row without one the weight 0",
            integer=True,
            low=0,
            high=shape[0] - 1,
            shape=(),
            where=("weight",),
        )
        flag = Requirement("1 where the answer may lie, else 0", "Give 1 or 0", low=0, high=1, shape=shape)
        return {
            "inputs": inputs_of(batch["inputs"], tables.get("inputs")),
            "segments": segments(shape),
            "types": _types(tables.get("types", getattr(model, "types", None)), shape),
            "context": flag,
            "start": position._replace(wrong=_outside("start")),
            "end": position._replace(wrong=_outside("end")),
            "weight": weights(),
        }

    return Task(init_from(model, "inputs"), loss, evaluate, requires=requires)


def _types(known: int | None, shape: tuple[int, ...]) -> Requirement:
    high = math.inf if known is None else known - 1
    do = "Give the question's tokens 0 and the context's 1, or the model more types"
    return Requirement("the model's types of tokens", do, True, 0, high, shape)


def _outside(name: str) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Which answers lie outside the context, or end before their start."""

    def wrong(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        position_B, context_BT = batch[name], batch["context"]
        inside_B = position_B.clip(0, context_BT.shape[1] - 1)
        return (context_BT[np.arange(len(position_B)), inside_B] <= 0) | (batch["end"] < batch["start"])

    return wrong


def predict(model: nn.Module, *, longest: int = 30) -> Callable[[Any, Any, Any], dict[str, jax.Array]]:
    """(params, extra, batch) to start, end (B) and score (B) of the best span of at most `longest` tokens.

    The score is the sum of the two logits; it compares the windows of one context.
    """

    def best(params, extra, batch):
        logits_BT2 = _possible(_logits(model, params, extra, batch, None)[0], batch)
        T = logits_BT2.shape[1]
        length_SE = jnp.arange(T)[None] - jnp.arange(T)[:, None] + 1
        score_BSE = logits_BT2[:, :, None, 0] + logits_BT2[:, None, :, 1]
        score_BSE = jnp.where((length_SE >= 1) & (length_SE <= longest), score_BSE, 4 * NEVER)
        flat_B = score_BSE.reshape(score_BSE.shape[0], -1)
        index_B = flat_B.argmax(-1)
        return {"start": index_B // T, "end": index_B % T, "score": flat_B.max(-1)}

    return best


def _logits(model: nn.Module, params: Any, extra: Any, batch: Any, keys_B: Any) -> tuple[Any, Any]:
    options = {"segments_BT": batch["segments"], "types_BT": batch["types"], "weight": batch.get("weight")}
    return apply(model, params, extra, batch["inputs"], keys_B, **options)


def _possible(logits_BT2: jax.Array, batch: Any) -> jax.Array:
    return jnp.where(batch["context"][..., None] > 0, logits_BT2.astype(jnp.float32), NEVER)


def normalise(text: str) -> str:
    """The text without case, punctuation, articles and extra spaces, as in SQuAD's official script."""
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

    Both arguments are by question; a question without a prediction counts 0. Source: arXiv:1606.05250,
    section 6.1.
    """
    if not answers:
        raise ValueError("score: got no answers; expected some by question. Look whether the data is empty.")
    exact = total = 0.0
    for question, known in answers.items():
        if question in predictions:
            got = predictions[question]
            exact += max(normalise(got) == normalise(answer) for answer in known)
            total += max(f1(got, answer) for answer in known)
    return {"exact_match": 100 * exact / len(answers), "f1": 100 * total / len(answers)}


def predictor(
    model: nn.Module, *, read: Callable[[Any], dict[str, np.ndarray]], longest: int = 30
) -> Predictor:
    """The Predictor of a question and its context, for `jaxmodels predict`: the best span of all windows.

    read(row): the row's windows, as data.formats.text_input.question_windows makes them, one after another in
        the model, so that a long context takes no more memory. longest: tokens of an answer.
    """
    best = predict(model, longest=longest)

    def answer(params, extra, batch):
        names = ("inputs", "segments", "types", "context")
        windows = {name: jnp.swapaxes(batch[f"window_{name}"], 0, 1) for name in names}
        found = jax.lax.map(lambda window: best(params, extra, window), windows)  # WB
        window_B, row_B = found["score"].argmax(0), jnp.arange(found["score"].shape[1])
        start_B, end_B, score_B = (found[name][window_B, row_B] for name in ("start", "end", "score"))
        characters_BWT2, letters_BL = batch["window_characters"], batch["letters"]
        begin_B = characters_BWT2[row_B, window_B, start_B, 0]
        stop_B = characters_BWT2[row_B, window_B, end_B, 1]
        position_BN = begin_B[:, None] + jnp.arange(min(LETTERS * longest, letters_BL.shape[1]))
        text_BN = jnp.take_along_axis(letters_BL, position_BN.clip(0, letters_BL.shape[1] - 1), 1)
        return {"begin": begin_B, "end": stop_B, "score": score_B, "letters": text_BN}

    def report(found):
        begin, end = int(found["begin"]), int(found["end"])
        text = "".join(map(chr, found["letters"][: end - begin].tolist()))
        return {"answer": text, "score": round(float(found["score"]), 4), "begin": begin, "end": end}

    return Predictor(read, answer, report, input="row", fields=("question", "context"))
