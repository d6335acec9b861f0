"""Linen models join by from_linen: dropout acts in training only, by one key per example."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import Experiment, Options, optim
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.layers.linen import from_linen
from jaxmodels.task import value
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.language import next_token
from jaxmodels.tasks.regress import regress
from jaxmodels.training import runner

pytestmark = pytest.mark.fast

B, I, K, V = 8, 5, 3, 7
KEY = jax.random.key(0)
KEYS = jax.random.split(jax.random.key(1), B)
X = jax.random.normal(jax.random.key(2), (B, I))


class Plain(nn.Module):
    """As in flax's own examples."""

    outputs: int = K

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.relu(nn.Dense(32)(x))
        return nn.Dense(self.outputs)(nn.Dropout(0.5, deterministic=not train)(x))


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x, *, deterministic):
        x = nn.BatchNorm(use_running_average=deterministic, momentum=0.5)(nn.Dense(32)(x))
        return nn.Dense(K)(nn.Dropout(0.5)(nn.relu(x), deterministic=deterministic))


class Texts(nn.Module):
    classes: int = K

    @nn.compact
    def __call__(self, tokens, attention_mask=None, training=False):
        x = nn.Dropout(0.3)(nn.Embed(V, 8)(tokens), deterministic=not training)
        real = jnp.ones(tokens.shape, bool) if attention_mask is None else attention_mask
        return nn.Dense(self.classes)((x * real[..., None]).sum(1) / real.sum(1, keepdims=True))


class Letters(nn.Module):
    @nn.compact
    def __call__(self, tokens, deterministic):
        return nn.Dense(V)(nn.Dropout(0.5)(nn.Embed(V, 16)(tokens), deterministic=deterministic))


PLAIN = from_linen(Plain(), train="train")


@pytest.mark.slow
def test_evaluation_is_the_models_own_and_its_parameters_keep_their_paths():
    variables, own = PLAIN.init(KEY, X), Plain().init(KEY, X, False)
    jax.tree.map(np.testing.assert_array_equal, variables, own)
    assert np.array_equal(PLAIN.apply(variables, X), Plain().apply(own, X, train=False))


@pytest.mark.slow
def test_in_training_each_example_is_dropped_by_its_own_key_however_the_batch_is_divided():
    variables = PLAIN.init(KEY, X)
    whole = PLAIN.apply(variables, X, KEYS)
    assert np.abs(whole - PLAIN.apply(variables, X)).max() > 0.1
    alone = Plain().apply(variables, X[3:4], train=True, rngs={"dropout": jax.random.fold_in(KEYS[3], 0)})
    np.testing.assert_allclose(whole[3], alone[0], rtol=1e-5, atol=1e-6)
    order = np.array([5, 2, 7, 0, 1, 3, 6, 4])
    np.testing.assert_allclose(
        PLAIN.apply(variables, X[order], KEYS[order]), whole[order], rtol=1e-5, atol=1e-6
    )
    halves = [PLAIN.apply(variables, X[at], KEYS[at]) for at in (slice(0, 4), slice(4, 8))]
    np.testing.assert_allclose(jnp.concatenate(halves), whole, rtol=1e-5, atol=1e-6)
    same = jnp.broadcast_to(X[:1], X.shape)
    assert len(np.unique(np.asarray(PLAIN.apply(variables, same, KEYS))[:, 0])) == B


@pytest.mark.slow
def test_with_batch_normalisation_the_batch_is_seen_at_once_and_statistics_move():
    model = from_linen(Normalised(), evaluate="deterministic")
    variables = model.init(KEY, X)
    y, new = model.apply(variables, X, KEYS, mutable=["batch_stats"])
    own = Normalised().apply(
        variables,
        X,
        deterministic=False,
        rngs={"dropout": jax.random.fold_in(KEYS[0], 0)},
        mutable=["batch_stats"],
    )
    jax.tree.map(np.testing.assert_array_equal, (y, new), own)
    before = variables["batch_stats"]["BatchNorm_0"]["mean"]
    assert np.abs(new["batch_stats"]["BatchNorm_0"]["mean"] - before).max() > 0.01
    assert np.array_equal(model.apply(variables, X), Normalised().apply(variables, X, deterministic=True))


def experiment(task) -> Experiment:
    numbers = np.random.default_rng(0)
    label = numbers.integers(0, K, 64).astype(np.int32)
    x = (np.eye(K, I)[label] * 3 + numbers.normal(size=(64, I))).astype(np.float32)
    data = ArrayPipeline({"x": x, "label": label, "target": x[:, :K]}, batch=16, seed=0)
    test = ArrayPipeline(data.arrays, batch=16)
    return Experiment(task=task, optimizer=optim.sgd(0.1), train=data, evals={"test": test}, steps=40)


@pytest.mark.slow
def test_a_run_learns_with_it_and_is_the_same_by_micro_batches():
    one = experiment(classify(PLAIN, inputs="x"))
    whole, parts = (runner.run(one, Options(mesh="data=1", accumulate=n)) for n in (1, 4))
    assert whole.metrics["test/accuracy"] > 0.85
    assert parts.metrics["test/loss"] == pytest.approx(whole.metrics["test/loss"], rel=1e-4)


@pytest.mark.slow
def test_regression_and_statistics_go_through_a_run_too():
    model = from_linen(Normalised(), evaluate="deterministic")
    result = runner.run(experiment(regress(model, inputs="x")), Options(mesh="data=1"))
    assert result.metrics["test/rmse"] < 1.5
    assert np.abs(result.state.extra["batch_stats"]["BatchNorm_0"]["mean"]).max() > 0.01


@pytest.mark.slow
def test_a_language_model_that_gives_logits_has_their_cross_entropy():
    task = next_token(from_linen(Letters(), evaluate="deterministic"))
    tokens = np.arange(B * 4, dtype=np.int32).reshape(B, 4) % V
    batch = {"inputs": tokens, "targets": (tokens + 1) % V, "weight": np.ones((B, 4), np.float32)}
    params, extra = task.init(KEY, batch)
    logits = Letters().apply({"params": params}, tokens, True)
    logs = np.asarray(logits - jax.nn.logsumexp(logits, -1, keepdims=True))
    want = -np.take_along_axis(logs, batch["targets"][..., None], -1).mean()
    assert value(task.evaluate(params, extra, batch)["loss"]) == pytest.approx(want, rel=1e-5)
    grads = jax.grad(lambda p: task.loss(p, extra, batch, KEYS)[0].total)(params)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))
    assert value(task.loss(params, extra, batch, KEYS)[0]) != pytest.approx(want, rel=1e-3)


@pytest.mark.slow
def test_padding_reaches_the_argument_that_leaves_it_out_or_is_refused():
    tokens, segments = jnp.array([[1, 2, 0, 0]]), jnp.array([[1, 1, 0, 0]])
    model = from_linen(Texts(), train="training", mask="attention_mask")
    variables = model.init(KEY, tokens)
    np.testing.assert_allclose(
        model.apply(variables, tokens, segments_BT=segments), model.apply(variables, tokens[:, :2]), rtol=1e-6
    )
    got = model.apply(variables, tokens, KEYS[:1], segments)
    other = model.apply(variables, tokens.at[0, 2:].set(5), KEYS[:1], segments)
    np.testing.assert_allclose(got, other, rtol=1e-6)
    with pytest.raises(ValueError, match=r'got a batch with "segments".*the mask argument.* Give mask='):
        from_linen(Texts(), train="training").apply(variables, tokens, segments_BT=segments)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"train": "is_training"},
            r"got 'is_training' for Plain, whose call takes x, train; .* Give train='train'\.$",
        ),
        ({}, r"got neither train nor evaluate for Plain, .* Give train='train'\.$"),
    ],
)
def test_an_argument_that_the_model_has_not_is_named(options, said):
    with pytest.raises(ValueError, match=said):
        from_linen(Plain(), **options)


@pytest.mark.slow
def test_rngs_are_refused_here_too():
    with pytest.raises(ValueError, match=r"got rngs \('dropout'\); .* Give keys_B="):
        PLAIN.apply(PLAIN.init(KEY, X), X, rngs={"dropout": KEY})
