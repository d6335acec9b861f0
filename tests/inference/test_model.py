"""jaxmodels.load: the answers of a loaded model, in any number and order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxmodels import Model, Predictor


def _read(text):
    if not text:
        raise ValueError("got an empty text; expected a letter. Write one")
    return {"x": np.zeros(len(text), np.float32)}


LENGTHS = Predictor(
    read=_read,
    predict=lambda params, extra, batch: batch["x"].shape[1] + params + batch["x"].sum(1),
    report=lambda length: {"length": float(length)},
    input="text",
)


def test_answers_come_in_the_order_of_the_inputs_whatever_their_shapes():
    model = Model(Path("here"), np.float32(0.5), {}, LENGTHS)
    texts = ["abc", "", "a", "xyz"] * 40
    answers = model(texts)
    assert [answer.values.get("length") for answer in answers] == [
        len(text) + 0.5 if text else None for text in texts
    ]
    assert [bool(answer.error) for answer in answers] == [not text for text in texts]
    assert model._program._cache_size() <= 2 * 3  # per length: full batches and the rest
