"""Dimensions: B batch, T tokens, V vocabulary."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxmodels.models.gpt import GPT
from jaxmodels.task import value
from jaxmodels.tasks.language import decoder, next_token

pytestmark = pytest.mark.fast

B, T, V = 2, 3, 4
BATCH = {
    "inputs": np.array([[0, 1, 2], [3, 3, 0]], np.int32),
    "targets": np.array([[1, 2, 3], [3, 0, 0]], np.int32),
    "weight": np.array([[1, 1, 0.5], [1, 0, 0]], np.float32),
}


class Table(nn.Module):
    """The logits of the next token by the token alone."""

    def setup(self):
        self.scores = nn.Embed(V, V)

    def __call__(self, tokens_BT):
        return self.scores(tokens_BT)

    def hidden(self, tokens_BT, keys_B=None, cache=None, count_B=None, segments_BT=None):
        return self.scores(tokens_BT), cache

    def table(self):
        return np.eye(V, dtype=np.float32)


class Sower(Table):
    """Has a loss of its own: the first token of the example."""

    def hidden(self, tokens_BT, *rest):
        self.sow("losses", "mine", tokens_BT[:, 0].astype("float32"))
        return super().hidden(tokens_BT, *rest)


PARAMS = {"scores": {"embedding": np.random.default_rng(0).normal(size=(V, V)).astype(np.float32)}}


def logits_BTV():
    return PARAMS["scores"]["embedding"].astype(np.float64)[BATCH["inputs"]]


def by_hand():
    """Cross-entropy of each token."""
    z = logits_BTV()
    logs = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return -np.take_along_axis(logs, BATCH["targets"][..., None], -1)[..., 0]


@pytest.mark.slow
def test_the_loss_is_the_mean_over_tokens_and_not_over_sequences():
    task = next_token(Table())
    loss, _, metrics = jax.jit(task.loss)(PARAMS, {}, BATCH, jax.random.split(jax.random.key(1), B))
    want = (by_hand() * BATCH["weight"]).sum() / 3.5
    assert value(loss) == value(metrics["loss"]) == pytest.approx(want, rel=1e-5)
    assert float(loss.weight) == 3.5
    assert value(jax.jit(task.evaluate)(PARAMS, {}, BATCH)["loss"]) == pytest.approx(want, rel=1e-5)


@pytest.mark.slow
def test_accuracy_counts_by_weight():
    task = next_token(Table())
    right = logits_BTV().argmax(-1) == BATCH["targets"]
    assert value(jax.jit(task.evaluate)(PARAMS, {}, BATCH)["accuracy"]) == pytest.approx(
        (right * BATCH["weight"]).sum() / 3.5
    )


@pytest.mark.parametrize("target", [-1, V + 5])
def test_the_target_of_padding_may_be_anything(target):
    task = next_token(Table())
    batch = {**BATCH, "targets": np.where(BATCH["weight"] > 0, BATCH["targets"], target)}
    keys_B = jax.random.split(jax.random.key(1), B)
    gradient = jax.jit(jax.grad(lambda p, batch: task.loss(p, {}, batch, keys_B)[0].total))
    clean, dirty = (gradient(PARAMS, b)["scores"]["embedding"] for b in (BATCH, batch))
    np.testing.assert_array_equal(dirty, clean)


def test_finish_gives_perplexity():
    assert next_token(Table()).finish({"loss": math.log(20), "accuracy": 0.1}) == {
        "loss": math.log(20),
        "accuracy": 0.1,
        "perplexity": pytest.approx(20),
    }


def test_finish_gives_bits_per_byte_of_the_text():
    """Two nats a token of four bytes: 2 / ln 2 / 4 bits."""
    finished = next_token(Table(), bytes_per_token=4.0).finish({"loss": 2.0})
    assert finished["bits_per_byte"] == pytest.approx(0.72135, rel=1e-4)


@pytest.mark.parametrize(("loss", "check"), [(1e6, math.isfinite), (float("nan"), math.isnan)])
def test_finish_survives_a_run_that_diverged(loss, check):
    assert check(next_token(Table()).finish({"loss": loss})["perplexity"])


@pytest.mark.slow
def test_a_decoder_steps_through_the_model():
    model = GPT(vocabulary=V, length=T, width=4, depth=1, heads=1)
    task = next_token(model)
    params, extra = jax.jit(task.init)(jax.random.key(0), BATCH)
    abc = decoder(
        model, encode=lambda text: [ord(c) - 97 for c in text], decode=lambda ids: "abcd", begin=0, end=3
    )
    assert (abc.length, abc.begin, abc.end, abc.prompt) == (T, 0, 3, "")
    assert abc.encode("bad") == [1, 0, 3]
    want = jax.jit(model.apply)({"params": params}, BATCH["inputs"])
    logits, cache = jax.jit(abc.read, static_argnums=4)(
        params, extra, BATCH["inputs"][:, :2], np.array([1, 2]), T
    )
    np.testing.assert_allclose(logits, [want[0, 0], want[1, 1]], rtol=1e-4, atol=1e-6)
    logits, _ = jax.jit(abc.write)(
        params, extra, np.array([BATCH["inputs"][0, 1], BATCH["inputs"][1, 2]]), cache
    )
    np.testing.assert_allclose(logits, [want[0, 1], want[1, 2]], rtol=1e-4, atol=1e-6)


def test_what_a_model_sows_is_added_for_each_token_and_shown():
    keys_B = jax.random.split(jax.random.key(1), B)
    task = next_token(Sower())
    assert jax.eval_shape(task.init, jax.random.key(0), BATCH)[1] == {}
    loss, _, metrics = jax.jit(task.loss)(PARAMS, {}, BATCH, keys_B)
    own = (np.array([0, 3])[:, None] * BATCH["weight"]).sum() / 3.5
    assert value(metrics["auxiliary"]) == pytest.approx(own)
    assert value(loss) == pytest.approx(value(metrics["loss"]) + own)
