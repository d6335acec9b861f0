"""Dimensions: B batch, T tokens, M width, V vocabulary, K classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instances import first

from jaxmodels.models.bert import (
    Bert,
    Embedder,
    MaskedLM,
    Pooled,
    SpanModel,
    TextClassifier,
    TokenClassifier,
    bert_base,
    bert_large,
    gelu,
    roberta_base,
)

B, T, V = 2, 6, 11
ENCODER = Bert(V, 8, 8, 2, 2, 12)
TOKENS = np.random.default_rng(0).integers(1, V, (B, T)).astype(np.int32)
HEADS = {
    "masked": MaskedLM(ENCODER),
    "pooled": Pooled(ENCODER),
    "text": TextClassifier(ENCODER, 3),
    "token": TokenClassifier(ENCODER, 3),
    "span": SpanModel(ENCODER),
    "embedder": Embedder(ENCODER),
}


def params_of(model, tokens=TOKENS):
    """Random parameters of which none is zero or one."""
    params = model.init(jax.random.key(0), tokens)["params"]
    random = np.random.default_rng(1)
    return {"params": jax.tree.map(lambda x: jnp.asarray(random.normal(0, 0.3, x.shape), x.dtype), params)}


def count(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS)
    return sum(x.size for x in jax.tree.leaves(shapes["params"]))


def hand_count(V, T, types, M, F, L):
    norm, dense = 2 * M, lambda a, b: a * b + b
    return (
        (V + T + types) * M
        + norm
        + L * (4 * dense(M, M) + dense(M, F) + dense(F, M) + 2 * norm)
        + dense(M, M)
    )


@pytest.mark.parametrize(
    ("encoder", "want"),
    [
        (bert_base(), 109_482_240),
        (bert_large(), hand_count(30522, 512, 2, 1024, 4096, 24)),
        (roberta_base(), hand_count(50265, 514, 1, 768, 3072, 12)),
    ],
)
def test_sizes_with_a_pooler_match_the_hand_counts(encoder, want):
    assert count(Pooled(encoder)) == want


def test_gelu_is_x_times_the_normal_distribution():
    from math import erf

    x = np.linspace(-4, 4, 33, dtype=np.float32)
    want = [value * (1 + erf(value / 2**0.5)) / 2 for value in x]
    np.testing.assert_allclose(gelu(x), want, atol=1e-6)


@pytest.mark.parametrize("name", first(3, HEADS))
def test_padding_changes_nothing(name):
    model = HEADS[name]
    variables = params_of(model)
    padded = np.pad(TOKENS, ((0, 0), (0, 2)), constant_values=5)
    segments = np.pad(np.ones_like(TOKENS), ((0, 0), (0, 2)))
    got = model.apply(variables, padded, None, segments)
    want = model.apply(variables, TOKENS)
    np.testing.assert_allclose(got if got.ndim == 2 else got[:, :T], want, atol=1e-5)


def test_a_padding_token_stands_for_segments():
    model = Embedder(ENCODER.clone(padding=0))
    variables = params_of(model)
    padded = np.pad(TOKENS, ((0, 0), (0, 2)))
    np.testing.assert_allclose(model.apply(variables, padded), model.apply(variables, TOKENS), atol=1e-6)


@pytest.mark.parametrize("offset", [0, 2])
def test_texts_packed_into_a_row_are_as_if_alone(offset):
    model = ENCODER.clone(offset=offset)
    variables = params_of(model)
    segments = np.array([[1, 1, 1, 2, 2, 0]] * B, np.int32)
    got = model.apply(variables, TOKENS, None, segments)
    np.testing.assert_allclose(got[:, :3], model.apply(variables, TOKENS[:, :3]), atol=1e-5)
    np.testing.assert_allclose(got[:, 3:5], model.apply(variables, TOKENS[:, 3:5]), atol=1e-5)


def test_every_token_sees_both_sides():
    variables = params_of(ENCODER)
    for position in (0, T - 1):
        changed = TOKENS.copy()
        changed[:, position] = TOKENS[:, position] % (V - 1) + 1
        moved = abs(ENCODER.apply(variables, changed) - ENCODER.apply(variables, TOKENS)).max(-1)
        assert (moved > 1e-6).all()


def test_types_count():
    variables = params_of(ENCODER)
    types = np.ones_like(TOKENS)
    assert (
        abs(ENCODER.apply(variables, TOKENS, None, None, types) - ENCODER.apply(variables, TOKENS)).max()
        > 1e-3
    )


def test_remat_changes_no_gradient():
    variables = params_of(ENCODER)
    want, got = (
        jax.grad(lambda v, model=model: (model.apply(v, TOKENS) ** 3).sum())(variables)
        for model in (ENCODER, ENCODER.clone(remat="full"))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, want)


@pytest.mark.parametrize("name", first(2, ["masked", "text", "token", "span"]))
def test_dropout_depends_on_the_examples_keys_alone(name):
    model = HEADS[name].clone(encoder=ENCODER.clone(dropout=0.3))
    variables = params_of(model)
    keys = jax.random.split(jax.random.key(0), B)
    both = model.apply(variables, TOKENS, keys)
    np.testing.assert_allclose(both[1:], model.apply(variables, TOKENS[1:], keys[1:]), atol=1e-5)
    assert abs(both - model.apply(variables, TOKENS)).max() > 1e-3


def test_the_masked_models_bias_is_added_to_its_logits():
    model = HEADS["masked"]
    params = params_of(model)["params"]
    moved = {**params, "bias": params["bias"] + np.arange(V)}
    got = model.apply({"params": moved}, TOKENS) - model.apply({"params": params}, TOKENS)
    np.testing.assert_allclose(got, np.broadcast_to(np.arange(V), (B, T, V)), atol=1e-4)


def test_embeddings_have_length_one():
    model = HEADS["embedder"]
    x = model.apply(params_of(model), TOKENS)
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1, atol=1e-6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="got 9 tokens; expected at most 8"):
        ENCODER.init(jax.random.key(0), np.zeros((1, 9), np.int32))
    with pytest.raises(ValueError, match="got types of tokens for a model with types=0; expected none"):
        ENCODER.clone(types=0).init(jax.random.key(0), TOKENS, None, None, TOKENS)
    with pytest.raises(ValueError, match="width 8 and 3 heads"):
        ENCODER.clone(heads=3).init(jax.random.key(0), TOKENS)
