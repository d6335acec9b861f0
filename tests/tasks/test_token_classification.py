"""Dimensions: B batch, T tokens, K classes."""

from __future__ import annotations

from functools import cache

import jax
import numpy as np
import pytest

from jaxmodels.models.bert import Bert, TokenClassifier
from jaxmodels.task import value
from jaxmodels.tasks.token_classification import token_classification

pytestmark = pytest.mark.fast

B, T, V, K = 2, 4, 9, 3
MODEL = TokenClassifier(Bert(V, T, 8, 1, 2, 12), K)
RANDOM = np.random.default_rng(0)
BATCH = {
    "inputs": RANDOM.integers(0, V, (B, T)).astype(np.int32),
    "segments": np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.int32),
    "label": RANDOM.integers(0, K, (B, T)).astype(np.int32),
    "weight": np.array([[0, 1, 1, 0], [1, 1, 0, 0]], np.float32),
}


@cache
def params():
    return jax.jit(token_classification(MODEL).init)(jax.random.key(0), BATCH)[0]


@pytest.mark.slow
def test_loss_and_accuracy_are_means_over_the_tokens_that_count():
    logits = np.asarray(
        MODEL.apply({"params": params()}, BATCH["inputs"], None, BATCH["segments"]), np.float64
    )
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    counts = BATCH["weight"] > 0
    loss = -np.take_along_axis(logs, BATCH["label"][..., None], -1)[..., 0][counts].mean()
    right = (logits.argmax(-1) == BATCH["label"])[counts].mean()
    got = token_classification(MODEL).evaluate(params(), {}, BATCH)
    assert value(got["loss"]) == pytest.approx(loss, rel=1e-4) and value(got["accuracy"]) == pytest.approx(
        right
    )


@pytest.mark.slow
def test_padding_changes_nothing():
    changed = {name: x.copy() for name, x in BATCH.items()}
    changed["inputs"][1, 2:] = 8 - changed["inputs"][1, 2:]
    a, b = (token_classification(MODEL).evaluate(params(), {}, batch)["loss"] for batch in (BATCH, changed))
    np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.slow
def test_training_and_evaluation_agree_without_dropout():
    loss, _, _ = token_classification(MODEL).loss(params(), {}, BATCH, jax.random.split(jax.random.key(0), B))
    np.testing.assert_allclose(
        loss, token_classification(MODEL).evaluate(params(), {}, BATCH)["loss"], rtol=1e-6
    )
