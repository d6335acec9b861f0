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


def traced():
    """A model, and the shape of each of its programs, which is noted when a program is traced."""
    shapes = []

    def predict(params, extra, batch):
        shapes.append(batch["x"].shape)
        return _predict(params, extra, batch)

    return Model(Path("here"), np.float32(0.5), {}, LENGTHS._replace(predict=predict)), shapes


def test_answers_come_in_the_order_of_the_inputs_whatever_their_shapes():
    model, shapes = traced()
    texts = ["abc", "", "a", "xyz"] * 40
    answers = model(texts)
    assert [answer.values.get("length") for answer in answers] == [
        len(text) + 0.5 if text else None for text in texts
    ]
    assert [bool(answer.error) for answer in answers] == [not text for text in texts]
    assert sorted(shapes) == [(64, 1), (64, 3)]


def test_every_shape_is_compiled_once_whatever_the_number_of_inputs():
    for count in (1, 3, 64, 65, 200, 2100):
        model, shapes = traced()
        assert len(model(["abc", "a"] * count)) == 2 * count
        assert len(shapes) == 2, count
        rows = 1 if count == 1 else 4 if count == 3 else 64
        assert sorted(shapes) == [(rows, 1), (rows, 3)]


def test_a_stream_holds_a_chunk_of_its_inputs_at_a_time(monkeypatch):
    monkeypatch.setattr("jaxmodels.inference.model.CHUNK", 100)
    model, shapes = traced()
    taken = 0

    def texts():
        nonlocal taken
        while taken < 1000:
            taken += 1
            yield "ab"

    answers = model.stream(texts())
    assert next(answers).values == {"length": 2.5} and taken == 100
    assert len(list(answers)) == 999 and shapes == [(64, 2)]


def test_an_input_of_another_kind_is_answered_with_what_was_expected():
    model, _ = traced()
    said = [answer.error for answer in model([7, " \n", ValueError("row 3 is broken"), "a"])]
    assert "got a int; expected a text" in said[0] and "got an empty text" in said[1]
    assert said[2:] == ["row 3 is broken", ""]
