"""Dimensions: B batch, T tokens, V vocabulary."""

from __future__ import annotations

import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import Model
from jaxmodels.data.formats.text_input import question_windows
from jaxmodels.task import value
from jaxmodels.tasks.question_answering import (
    f1,
    normalise,
    predict,
    predictor,
    question_answering,
    score,
)

pytestmark = pytest.mark.fast

B, T = 3, 5


class Table(nn.Module):
    """Both logits by the token alone."""

    @nn.compact
    def __call__(self, tokens_BT, keys_B=None, segments_BT=None, types_BT=None):
        return nn.Embed(T, 2, name="table")(tokens_BT)


LOGITS = np.random.default_rng(0).normal(size=(T, 2)).astype(np.float32)
PARAMS = {"table": {"embedding": LOGITS}}
TOKENS = np.tile(np.arange(T, dtype=np.int32), (B, 1))
BATCH = {
    "inputs": TOKENS,
    "segments": np.ones_like(TOKENS),
    "types": np.ones_like(TOKENS),
    "context": np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 1, 1, 0, 0]], np.int32),
    "start": np.array([0, 2, 1], np.int32),
    "end": np.array([2, 2, 2], np.int32),
    "weight": np.array([1, 1, 1], np.float32),
}


def slow_loss(row):
    positions = np.flatnonzero(BATCH["context"][row])
    parts = []
    for side, name in enumerate(("start", "end")):
        x = LOGITS[positions, side]
        parts.append(np.log(np.exp(x).sum()) - LOGITS[BATCH[name][row], side])
    return np.mean(parts)


@pytest.mark.slow
def test_the_loss_is_the_mean_of_both_cross_entropies_over_the_context():
    want = np.mean([slow_loss(row) for row in range(B)])
    assert value(question_answering(Table()).evaluate(PARAMS, {}, BATCH)["loss"]) == pytest.approx(
        want, rel=1e-5
    )


@pytest.mark.slow
def test_tokens_outside_of_the_context_get_no_gradient():
    batch = {name: x[2:] for name, x in BATCH.items()}
    keys = jax.random.split(jax.random.key(0), 1)
    grads = jax.grad(lambda params: question_answering(Table()).loss(params, {}, batch, keys)[0].total)(
        PARAMS
    )["table"]["embedding"]
    assert (np.asarray(grads)[[0, 3, 4]] == 0).all() and (np.asarray(grads)[[1, 2]] != 0).all()


@pytest.mark.slow
def test_an_example_without_an_answer_counts_nowhere():
    batch = {**BATCH, "weight": np.array([0, 1, 0], np.float32)}
    assert value(question_answering(Table()).evaluate(PARAMS, {}, batch)["loss"]) == pytest.approx(
        slow_loss(1), rel=1e-5
    )


@pytest.mark.slow
def test_a_row_without_context_gives_no_nan():
    batch = {**BATCH, "context": np.zeros_like(TOKENS), "weight": np.zeros(B, np.float32)}
    keys = jax.random.split(jax.random.key(0), B)
    grads = jax.grad(lambda params: question_answering(Table()).loss(params, {}, batch, keys)[0].total)(
        PARAMS
    )
    assert np.isfinite(grads["table"]["embedding"]).all()


@pytest.mark.parametrize("longest", [1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_span_is_that_of_a_search_through_all(seed, longest):
    x = np.random.default_rng(seed).normal(size=(T, 2)).astype(np.float32)
    got = jax.jit(predict(Table(), longest=longest))({"table": {"embedding": x}}, {}, BATCH)
    for row in range(B):
        allowed = BATCH["context"][row] > 0
        spans = [(s, e) for s in range(T) for e in range(s, min(T, s + longest)) if allowed[s] and allowed[e]]
        start, end = max(spans, key=lambda span: x[span[0], 0] + x[span[1], 1])
        assert (got["start"][row], got["end"][row]) == (start, end)
        assert got["score"][row] == pytest.approx(x[start, 0] + x[end, 1], rel=1e-5)


def test_answers_are_compared_without_case_punctuation_and_articles():
    assert normalise("  The U.S.A.'s\tbest-known,  an Apple ") == "usas bestknown apple"


def test_f1_counts_common_words_by_hand():
    assert f1("the cat sat down", "cat sat on a mat") == pytest.approx(
        2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)
    )
    assert f1("dog", "cat") == 0


def test_a_questions_best_answer_counts_and_one_without_prediction_is_wrong():
    answers = {"a": ["Denver Broncos", "the Broncos"], "b": ["1998"], "c": ["red"]}
    got = score({"a": "Broncos!", "b": "in 1998"}, answers)
    assert got == pytest.approx({"exact_match": 100 / 3, "f1": 100 * (1 + 2 / 3) / 3})


def test_scoring_nothing_is_refused():
    with pytest.raises(ValueError, match="got no answers; expected some"):
        score({}, {})


class Reads(nn.Module):
    """Logits that are the token's value where it is an answer's first (from 100) or last (from 200)."""

    @nn.compact
    def __call__(self, tokens_BT, keys_B=None, segments_BT=None, types_BT=None):
        scale = self.param("scale", nn.initializers.ones, ())
        first_BT = jnp.where((tokens_BT >= 100) & (tokens_BT < 200), tokens_BT, 0.0)
        last_BT = jnp.where(tokens_BT >= 200, tokens_BT, 0.0)
        return scale * jnp.stack([first_BT, last_BT], -1)


def test_a_predictor_takes_the_best_span_of_all_windows_of_a_long_context():
    def encode(text):
        spans = [part.span() for part in re.finditer(r"\S+", text)]
        return [int(text[a:b]) if text[a:b].isdigit() else 5 for a, b in spans], spans

    def read(row):
        return question_windows(row, encode=encode, first=1, between=2, lengths=(8, 16), stride=5)

    model = Model(Path("here"), {"scale": 1.0}, {}, predictor(Reads(), read=read, longest=3))
    filler = "word " * 40
    rows = [
        {"question": "q", "context": f"110 210 {filler}150 ünd 250 {filler}140 240"},
        {
            "question": "q",
            "context": f"{filler}199 x y z 299 {filler} 120 220",
        },  # too long: four tokens apart
        {"question": "q", "context": "word 150 250"},
        {"question": "a longer question", "context": ""},
    ]
    answers = model(rows)
    assert [answer.values.get("answer") for answer in answers] == ["150 ünd 250", "120 220", "150 250", None]
    for row, answer in zip(rows[:3], answers[:3], strict=True):
        found = answer.values
        assert row["context"][found["begin"] : found["end"]] == found["answer"]
    assert answers[0].values["score"] == 400 and "expected a text" in answers[3].error
