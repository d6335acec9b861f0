"""Connectionist temporal classification: a text of fewer tokens than frames, with no alignment given.

(Graves et al., 2006.) A model here has a call that gives Frames: logits_BTK, with class 0 for the blank, and
segments_BT, 0 where a sound is padded; see jaxmodels.models.conformer.
Dimensions: B batch, T frames, K classes, L labels of a text at most, N tokens of a text found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmodels.interfaces import Predictor
from jaxmodels.task import Mean, Requirement, Task
from jaxmodels.tasks.apply import apply, call_options, init_from, table_sizes
from jaxmodels.tasks.ctc_decoding import Texts, greedy, prefix_beam
from jaxmodels.tasks.requirements import inputs_of, segments, weights


def ctc(model: nn.Module, *, inputs: str = "audio") -> Task:
    """The loss in nats of each text, -log of the probability of all its paths, by optax.ctc_loss.

    Batches have batch[inputs], "labels" (BL, int: classes from 1 on, then zeros), "weight" (B) and, where
    sounds are padded, "segments" (int, 0 for padding). A text that no path can say, as there are too few
    frames for its labels and a blank between equal ones, has weight 0 in the loss; "impossible" is the part
    of such texts, and counts them all. "exact" is the part of the texts that greedy decoding gets right.
    """

    def measure(frames: Any, batch: Any) -> dict[str, Mean]:
        logits_BTK, padded_BT = frames.logits_BTK.astype(jnp.float32), frames.segments_BT == 0
        labels_BL, weight_B = batch["labels"], batch["weight"]
        padding = padded_BT.astype(jnp.float32), (labels_BL == 0).astype(jnp.float32)
        loss_B = optax.ctc_loss(logits_BTK, padding[0], labels_BL, padding[1])
        possible_B = needed(labels_BL) <= (~padded_BT).sum(1)
        said = greedy(logits_BTK, frames.segments_BT)
        return {
            "loss": Mean.of(loss_B, weight_B * possible_B),
            "impossible": Mean.of(~possible_B, weight_B),
            "exact": Mean.of(equal(said, labels_BL), weight_B),
        }

    def loss(params, extra, batch, keys_B):
        frames, extra = apply(model, params, extra, batch[inputs], keys_B, **call_options(batch))
        metrics = measure(frames, batch)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        frames, _ = apply(model, params, extra, batch[inputs], None, **call_options(batch))
        return measure(frames, batch)

    def examine(params, extra, batch):
        frames, _ = apply(model, params, extra, batch[inputs], None, **call_options(batch))
        padding = {"segments": batch["segments"]} if "segments" in batch else {}
        said = greedy(frames.logits_BTK, frames.segments_BT)
        return {"reference": batch["labels"], "hypothesis": said.tokens, "input": batch[inputs], **padding}

    def requires(batch, params, extra):
        def run(params, extra, batch):
            return apply(model, params, extra, batch[inputs], None, **call_options(batch))[0]

        frames, tables = table_sizes(run, params, extra, batch)
        return {
            inputs: inputs_of(batch[inputs], tables.get(inputs)),
            "labels": _labels(frames.logits_BTK.shape[-1], batch["labels"].shape[1]),
            "weight": weights(),
            "segments": segments(),
        }

    return Task(init_from(model, inputs), loss, evaluate, examine=examine, requires=requires)


def needed(labels_BL: jax.Array) -> jax.Array:
    """The fewest frames (B) that can say each text: one for a label, one for a blank between equal ones."""
    twice_BL = (labels_BL[:, 1:] == labels_BL[:, :-1]) & (labels_BL[:, 1:] != 0)
    return (labels_BL != 0).sum(1) + twice_BL.sum(1)


def equal(said: Texts, labels_BL: jax.Array) -> jax.Array:
    """Whether each text (BN) is that of the labels."""
    N, L = said.tokens.shape[1], labels_BL.shape[1]
    size = max(N, L)
    one, other = (jnp.pad(x, ((0, 0), (0, size - x.shape[1]))) for x in (said.tokens, labels_BL))
    return (one == other).all(1)


def _labels(K: int, L: int) -> Requirement:
    def wrong(batch: Any) -> np.ndarray:
        label = np.asarray(batch["labels"])
        return (label != 0) & (np.pad(label == 0, ((0, 0), (1, 0)))[:, :-1])

    return Requirement(
        f"labels from 1 to {K - 1:,}, and zeros behind the last",
        "Number the classes from 1, as 0 is the blank, or give the model more classes",
        integer=True,
        low=0,
        high=K - 1,
        shape=(L,),
        where=("weight",),
        wrong=wrong,
    )


class Search(NamedTuple):
    """How a text is found: the best of `width` beams, of at most `tokens`; a width of 0 is greedy."""

    width: int = 0
    tokens: int = 100


GREEDY = Search()


def texts(
    model: nn.Module, search: Search = GREEDY, *, inputs: str = "audio"
) -> Callable[[Any, Any, Any], Texts]:
    """(params, extra, batch) to the texts (BN), for Evaluation.predict."""

    def predict(params, extra, batch):
        frames, _ = apply(model, params, extra, batch[inputs], None, **call_options(batch))
        if not search.width:
            return greedy(*frames)
        found = prefix_beam(*frames, width=search.width, tokens=search.tokens)
        return Texts(found.tokens[:, 0], found.length[:, 0], found.score[:, 0])

    return predict


def transcriber(
    model: nn.Module,
    words: Sequence[str],
    *,
    read: Callable[[Any], dict[str, np.ndarray]],
    search: Search = GREEDY,
    separator: str = " ",
    inputs: str = "audio",
) -> Predictor:
    """The Predictor of a recogniser: "text", with the mean "log_probability" of a token.

    words: of classes 1, 2, ...: words, or letters with separator="". read: see classify.predictor.
    """

    def report(found: Any) -> dict[str, Any]:
        count = int(found.length)
        text = separator.join(words[token - 1] for token in found.tokens[:count].tolist())
        return {"text": text, "log_probability": round(float(found.score) / max(1, count), 4)}

    def settings() -> dict[str, Any]:
        return {"words": list(words), "separator": separator, "search": search._asdict()}

    predict = texts(model, search, inputs=inputs)
    return Predictor(read, predict, report, input="sound", settings=settings)
