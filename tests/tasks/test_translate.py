"""Dimensions: B batch, S tokens of the source, T of the target, V vocabulary."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmodels.decoding import beam, generate
from jaxmodels.models.t5 import T5
from jaxmodels.models.transformer import Transformer
from jaxmodels.task import value
from jaxmodels.tasks.translate import decoder, translate

fast = pytest.mark.fast

B, S, T, V = 4, 5, 6, 11
MODELS = {"transformer": Transformer(V, 8, 2, 2, 12, length=20), "t5": T5(V, 8, 2, 2, 4, 12, length=20)}
MODEL = MODELS["transformer"]
RANDOM = np.random.default_rng(0)
COUNTS = np.array([5, 2, 4, 1])
BATCH = {
    "source": RANDOM.integers(3, V, (B, S)).astype(np.int32),
    "source_segments": (np.arange(S) < COUNTS[:, None]).astype(np.int32),
    "inputs": RANDOM.integers(3, V, (B, T)).astype(np.int32),
    "targets": RANDOM.integers(3, V, (B, T)).astype(np.int32),
    "weight": (RANDOM.random((B, T)) < 0.6).astype(np.float32),
}
KEYS = jax.random.split(jax.random.key(1), B)
BEGIN, END = 1, 2


def moved(task, seed=0):
    """(params, extra) away from their start, where most answers are alike."""
    params, extra = jax.jit(task.init)(jax.random.key(seed), BATCH)
    leaves, tree = jax.tree.flatten(params)
    random = np.random.default_rng(seed)
    return jax.tree.unflatten(
        tree, [x + 0.3 * random.normal(size=x.shape).astype(np.float32) for x in leaves]
    ), extra


def measured(metrics):
    return {name: value(mean) for name, mean in metrics.items()}


@pytest.mark.slow
@fast
@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_the_weighted_mean_over_tokens_of_the_cross_entropy_of_the_models_logits(name):
    task = translate(MODELS[name])
    params, extra = moved(task)
    logits = MODELS[name].apply(
        {"params": params}, BATCH["source"], BATCH["inputs"], None, BATCH["source_segments"]
    )
    loss_BT = optax.softmax_cross_entropy_with_integer_labels(logits, BATCH["targets"])
    want = {
        "loss": np.average(loss_BT, weights=BATCH["weight"]),
        "accuracy": np.average(logits.argmax(-1) == BATCH["targets"], weights=BATCH["weight"]),
    }
    assert measured(jax.jit(task.evaluate)(params, extra, BATCH)) == pytest.approx(want, rel=1e-5)


@pytest.mark.slow
@fast
def test_smoothing_moves_a_part_of_each_target_in_training_alone():
    params, extra = moved(translate(MODEL))
    logits = MODEL.apply({"params": params}, BATCH["source"], BATCH["inputs"], None, BATCH["source_segments"])
    want_BT = optax.softmax_cross_entropy(
        logits, optax.smooth_labels(jax.nn.one_hot(BATCH["targets"], V), 0.1)
    )
    smooth = translate(MODEL, smoothing=0.1)
    loss, _, metrics = jax.jit(smooth.loss)(params, extra, BATCH, KEYS)
    assert value(loss) == pytest.approx(float(np.average(want_BT, weights=BATCH["weight"])), rel=1e-5)
    assert value(metrics["loss"]) == value(loss)
    plain, smoothed = (
        measured(jax.jit(t.evaluate)(params, extra, BATCH)) for t in (translate(MODEL), smooth)
    )
    assert plain == smoothed and plain["loss"] != pytest.approx(value(loss), rel=1e-3)


@fast
def test_perplexity_is_the_exponential_of_the_loss():
    assert translate(MODEL).finish({"loss": 2.0})["perplexity"] == pytest.approx(np.exp(2.0))


@pytest.mark.slow
@fast
def test_what_fills_a_source_up_changes_no_loss():
    task = translate(MODEL)
    params, extra = moved(task)
    other = {**BATCH, "source": np.where(BATCH["source_segments"] == 0, 4, BATCH["source"])}
    evaluate = jax.jit(task.evaluate)
    assert measured(evaluate(params, extra, other)) == measured(evaluate(params, extra, BATCH))


@pytest.mark.slow
@fast
def test_without_segments_every_token_of_the_source_counts():
    task = translate(MODEL)
    params, extra = moved(task)
    bare = {name: x for name, x in BATCH.items() if name != "source_segments"}
    ones = {**BATCH, "source_segments": np.ones((B, S), np.int32)}
    evaluate = jax.jit(task.evaluate)
    want = measured(evaluate(params, extra, ones))
    assert measured(evaluate(params, extra, bare)) == pytest.approx(want, rel=1e-5)
    assert want["loss"] != pytest.approx(measured(evaluate(params, extra, BATCH))["loss"], rel=1e-3)


@pytest.mark.slow
@fast
def test_pairs_packed_into_a_row_have_the_losses_of_single_ones():
    task = translate(MODEL)
    params, extra = moved(task)
    two = {name: x[:2] for name, x in BATCH.items()}
    packed = {name: x.reshape(1, -1) for name, x in two.items()}
    packed["source_segments"] = two["source_segments"] * [[1], [2]]
    packed["source_segments"] = packed["source_segments"].reshape(1, -1).astype(np.int32)
    packed["segments"] = np.repeat([[1, 2]], T, axis=1).astype(np.int32)
    evaluate = jax.jit(task.evaluate)
    want = measured(evaluate(params, extra, two))
    assert measured(evaluate(params, extra, packed)) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_beam_of_one_writes_what_reading_everything_again_writes(name):
    model = MODELS[name]
    params, _ = moved(translate(model), seed=2)
    N = 6
    made = decoder(model, encode=lambda text: list(map(int, text.split())), decode=str, begin=BEGIN, end=END)
    found = beam(made, params, {}, BATCH["source"], COUNTS, width=1, tokens=N)

    apply = jax.jit(model.apply)
    target = np.full((B, N + 1), BEGIN, np.int32)
    for n in range(N):  # later tokens are not seen, so the length may stay
        logits = apply({"params": params}, BATCH["source"], target, None, BATCH["source_segments"])
        target[:, n + 1] = logits[:, n].argmax(-1)
    for b in range(B):
        want = target[b, 1:].tolist()
        want = want[: want.index(END)] if END in want else want
        assert found.tokens_BKN[b, 0, : found.count_BK[b, 0]].tolist() == want


def test_sampling_at_temperature_zero_writes_what_a_beam_of_one_writes():
    params, _ = moved(translate(MODEL), seed=2)
    made = decoder(
        MODEL,
        encode=lambda text: list(map(int, text.split())),
        decode=lambda tokens: " ".join(map(str, tokens)),
        begin=BEGIN,
        end=END,
    )
    sources = [" ".join(map(str, row[:n])) for row, n in zip(BATCH["source"], COUNTS, strict=True)]
    greedy = generate(made, params, {}, sources, temperature=0.0, tokens=6)
    searched = generate(made, params, {}, sources, beams=1, tokens=6)
    assert [one.tokens for one in greedy] == [one.tokens for one in searched]


@pytest.mark.slow
@fast
def test_every_array_of_the_decoders_cache_has_the_batch_second():
    params = jax.eval_shape(MODEL.init, jax.random.key(0), BATCH["source"], BATCH["inputs"])["params"]
    made = decoder(MODEL, encode=str.split, decode=str, begin=BEGIN, end=END)
    counts = jnp.asarray(COUNTS)
    logits, cache = jax.eval_shape(
        lambda p: made.read(p, {}, jnp.asarray(BATCH["source"]), counts, 9), params
    )
    again, after = jax.eval_shape(lambda p, c: made.write(p, {}, jnp.zeros(B, jnp.int32), c), params, cache)
    assert logits.shape == again.shape == (B, V)
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (cache, after)]
    assert shapes[0] == shapes[1] and {x.shape[1] for x in jax.tree.leaves(cache)} == {B}
