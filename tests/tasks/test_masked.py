"""Dimensions: B batch, T tokens, V vocabulary."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.models.bert import Bert, MaskedLM
from jaxmodels.task import value
from jaxmodels.tasks.masked import corrupt, masked, token_keys

pytestmark = pytest.mark.fast

B, T, V, MASK = 4, 8, 12, 11
MODEL = MaskedLM(Bert(V, T + 4, 8, 1, 2, 12))
TASK = masked(MODEL, mask=MASK, vocabulary=V, special=(0, 1), rate=0.5)
TOKENS = np.random.default_rng(0).integers(2, MASK, (B, T)).astype(np.int32)
BATCH = {"inputs": TOKENS, "weight": np.ones((B, T), np.float32)}
KEYS = jax.random.split(jax.random.key(3), B)


@pytest.fixture(scope="module")
def params():
    return TASK.init(jax.random.key(0), BATCH)[0]


@pytest.mark.slow
def test_80_of_100_chosen_tokens_are_masked_10_drawn_and_10_kept():
    tokens = jnp.full((64, 1024), 5, jnp.int32)
    keys = jax.random.split(jax.random.key(0), 64)
    new, chosen = corrupt(keys, tokens, tokens > 0, mask=MASK, vocabulary=1000, rate=0.15)
    n = chosen.sum()
    near = {"rel": 0.06}
    assert n / tokens.size == pytest.approx(0.15, rel=0.03)
    assert ((new == MASK) & chosen).sum() / n == pytest.approx(0.8, rel=0.02)
    assert ((new == 5) & chosen).sum() / n == pytest.approx(0.1, **near)
    assert ((new != 5) & (new != MASK)).sum() / n == pytest.approx(0.1, **near)
    assert (new[~chosen] == 5).all()


@pytest.mark.slow
def test_only_open_tokens_are_chosen():
    _, chosen = corrupt(KEYS, TOKENS, TOKENS > 5, mask=MASK, vocabulary=V, rate=0.9)
    assert chosen.any() and not chosen[TOKENS <= 5].any()


@pytest.mark.slow
def test_each_key_chooses_otherwise_and_each_row_by_its_own(params):
    first, again, other = (
        float(TASK.loss(params, {}, BATCH, keys)[0].total) for keys in (KEYS, KEYS, KEYS[::-1])
    )
    assert first == again != other
    one = {name: x[2:3] for name, x in BATCH.items()}
    rows = [
        TASK.loss(params, {}, {k: x[i : i + 1] for k, x in BATCH.items()}, KEYS[i : i + 1])[0]
        for i in range(B)
    ]
    assert TASK.loss(params, {}, one, KEYS[2:3])[0].weight == rows[2].weight
    assert sum(float(row.total) for row in rows) == pytest.approx(first, rel=1e-5)


@pytest.mark.slow
def test_evaluation_changes_a_text_always_in_the_same_way(params):
    whole = TASK.evaluate(params, {}, BATCH)["loss"]
    turned = TASK.evaluate(params, {}, {name: x[::-1] for name, x in BATCH.items()})["loss"]
    np.testing.assert_allclose(whole, turned, rtol=1e-5)


def test_texts_that_differ_are_changed_in_different_ways():
    rows = np.stack([TOKENS[0], TOKENS[0][::-1], np.roll(TOKENS[0], 1), TOKENS[0] + (np.arange(T) == 3)])
    assert len(np.unique(jax.random.key_data(token_keys(rows)), axis=0)) == 4


@pytest.mark.slow
def test_the_loss_is_the_cross_entropy_of_the_chosen_tokens(params):
    new, chosen = corrupt(token_keys(TOKENS), TOKENS, TOKENS > 1, mask=MASK, vocabulary=V, rate=0.5)
    logs = jax.nn.log_softmax(MODEL.apply({"params": params}, new))
    want = -np.take_along_axis(np.asarray(logs), TOKENS[..., None], -1)[..., 0][np.asarray(chosen)].mean()
    assert value(TASK.evaluate(params, {}, BATCH)["loss"]) == pytest.approx(want, rel=1e-5)


@pytest.mark.slow
def test_special_tokens_and_those_of_weight_0_are_never_scored(params):
    special = {"inputs": np.ones((B, T), np.int32), "weight": np.ones((B, T), np.float32)}
    assert TASK.evaluate(params, {}, special)["loss"].weight == 0
    assert TASK.evaluate(params, {}, {**BATCH, "weight": np.zeros((B, T), np.float32)})["loss"].weight == 0


@pytest.mark.slow
def test_perplexity_is_the_exponent_of_the_loss():
    assert TASK.finish({"loss": 2.0})["perplexity"] == pytest.approx(np.exp(2))
