"""jaxmodels.load: the answers of a loaded model, in any number and order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxmodels import Model, Predictor


def _read(text):
    if not text:
        raise ValueError("got an empty text; expected a letter. Write one")
    return {"x": np.zeros(len(text), np.float32)}


def _predict(params, extra, batch):
    return batch["x"].shape[1] + params + batch["x"].sum(1)


def _report(length):
    return {"length": float(length)}


LENGTHS = Predictor(read=_read, predict=_predict, report=_report, input="text")


def test_answers_come_in_the_order_of_the_inputs_whatever_their_shapes():
    shapes = []

    def predict(params, extra, batch):  # runs once for each program, when that is traced
        shapes.append(batch["x"].shape)
        return _predict(params, extra, batch)

    model = Model(Path("here"), np.float32(0.5), {}, LENGTHS._replace(predict=predict))
    texts = ["abc", "", "a", "xyz"] * 40
    answers = model(texts)
    assert [answer.values.get("length") for answer in answers] == [
        len(text) + 0.5 if text else None for text in texts
    ]
    assert [bool(answer.error) for answer in answers] == [not text for text in texts]
    assert 2 <= len(shapes) <= 2 * 3  # of each length: full batches and the rest
