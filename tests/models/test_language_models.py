"""What every language model does: causality, cache, packing, gradients, types.

Dimensions: B batch, T tokens, L layers, M width, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instances import first

from jaxmodels.layers.kv_cache import KVCache
from jaxmodels.layers.rope import Scaling
from jaxmodels.models.gpt import GPT
from jaxmodels.models.llama import Llama
from jaxmodels.models.moe import MoE
from jaxmodels.models.rnn import RNN

B, T, V, M, L = 3, 8, 11, 8, 2
TOKENS = np.random.default_rng(0).integers(0, V, (B, T)).astype(np.int32)

gpt = {"vocabulary": V, "length": T, "width": M, "depth": L, "heads": 2}
llama = {**gpt, "heads": 4, "key_heads": 2, "hidden_width": 12}
moe = {**gpt, "heads": 4, "key_heads": 2, "experts": 5, "chosen": 2, "expert_width": 6, "balance": 0.1}
rnn = {"vocabulary": V, "width": M, "depth": L}
MODELS = {
    "gpt": GPT(**gpt),
    "gpt 3": GPT(**gpt, band=3),
    "llama 2": Llama(**llama),
    "llama 3.1": Llama(**llama, theta=5e5, scaling=Scaling("llama3", 8.0, 4)),
    "mistral": Llama(**llama, window=3),
    "qwen 2": Llama(**llama, biases=("query", "key", "value"), tied=True),
    "qwen 3": Llama(**llama, head_norm=True, head_width=6, tied=True),
    "mixtral": MoE(**moe, window=3),
    "qwen 1.5 moe": MoE(**moe, biases=("query", "key", "value"), shared_width=7, renormalise=False),
    "qwen 3 moe": MoE(**{**moe, "chosen": 3}, head_norm=True, head_width=6, tied=True),
    **{cell: RNN(**rnn, cell=cell) for cell in ("elman", "lstm", "gru")},
}
ONE_OF_EACH = ["gpt", "qwen 3", "qwen 1.5 moe", "lstm"]

fast = pytest.mark.fast


def variables_of(model, seed=1):
    """Parameters none of which is zero or one, as biases and scales are at first."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS)
    random = np.random.default_rng(seed)
    draw = jax.tree.map(lambda x: 0.4 * random.normal(size=x.shape).astype(np.float32), shapes["params"])
    return {"params": jax.tree.map(jnp.asarray, draw)}


class Family(NamedTuple):
    """A model with its compiled programs, which all tests of the model share."""

    model: Any
    variables: Any
    logits: Any  # (tokens) -> logits
    cached: Any  # (tokens, cache, count or None) -> (logits, cache)


QUICK = dict.fromkeys(("gpt", "gpt 3", "elman", "lstm", "gru"), fast)
PARTS_OF_OTHERS = dict.fromkeys(("llama 2", "qwen 2", "mixtral"), pytest.mark.thorough)
MARKS = QUICK | PARTS_OF_OTHERS


@pytest.fixture(scope="module", params=[pytest.param(name, marks=MARKS.get(name, ())) for name in MODELS])
def family(request):
    model = MODELS[request.param]
    variables = variables_of(model)
    return Family(
        model,
        variables,
        jax.jit(lambda tokens: model.apply(variables, tokens)),
        jax.jit(lambda tokens, cache, count: model.apply(variables, tokens, None, cache, count)),
    )


def test_no_logit_depends_on_a_later_token(family):
    changed = TOKENS.copy()
    changed[:, 3] = (changed[:, 3] + 1) % V
    before, after = family.logits(TOKENS), family.logits(changed)
    # Experts sort all tokens together, so that rounding may differ.
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if isinstance(family.model, MoE) else {"rtol": 0, "atol": 0}
    np.testing.assert_allclose(after[:, :3], before[:, :3], **tolerance)
    last = 5 if getattr(family.model, "window", None) else T
    assert np.abs(after[:, 3:last] - before[:, 3:last]).max(-1).min() > 1e-4


def test_rows_of_different_lengths_read_with_a_cache_equal_each_read_at_once(family):
    logits = family.logits(TOKENS)
    read = np.zeros(B, int)
    cache = family.model.start(B, T + 4)  # the last chunk's padding is written too
    for counts in ((4, 1, 2), (1, 3, 4), (2, 4, 1), (1, 0, 1)):
        chunk = np.full((B, 4), 7, np.int32)
        for row, n in enumerate(counts):
            chunk[row, :n] = TOKENS[row, read[row] : read[row] + n]
        got, cache = family.cached(chunk, cache, jnp.asarray(counts))
        for row, n in enumerate(counts):
            want = logits[row, read[row] : read[row] + n]
            np.testing.assert_allclose(got[row, :n], want, rtol=1e-4, atol=1e-4)
        read += counts
    np.testing.assert_array_equal(read, T)
    assert {x.shape[:2] for x in jax.tree.leaves(cache)} == {(L, B)}
    if isinstance(cache, KVCache):
        np.testing.assert_array_equal(cache.length_LB, T)


def test_without_counts_every_token_of_a_chunk_is_real(family):
    cache, parts = family.model.start(B, T), []
    for chunk in np.split(TOKENS, (4, 5, 6, 7), axis=1):
        logits, cache = family.cached(chunk, cache, None)
        parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts, 1), family.logits(TOKENS), rtol=1e-4, atol=1e-4)


def test_packed_documents_equal_each_on_its_own(family):
    segments = np.array([[1, 1, 1, 2, 2, 2, 2, 0]] * B, np.int32)
    packed = jax.jit(lambda tokens: family.model.apply(family.variables, tokens, segments_BT=segments))(
        TOKENS
    )
    for begin, end in ((0, 3), (3, 7)):
        alone = family.logits(np.roll(TOKENS, -begin, 1))[:, : end - begin]  # later tokens change nothing
        np.testing.assert_allclose(packed[:, begin:end], alone, rtol=1e-4, atol=1e-4)


def gradient(model, variables, keys_B=None):
    def loss(variables):
        return jnp.sum(model.apply(variables, TOKENS, keys_B).astype(jnp.float32) ** 2)

    return jax.jit(jax.grad(loss))(variables)


# Experts in bfloat16, as a grouped product has gradients of its own there.
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, jnp.float32) for name in ("llama 3.1", "mistral", "qwen 2", "qwen 3")),
        *((name, jnp.bfloat16) for name in MODELS if isinstance(MODELS[name], MoE)),
        *first(0, [(name, jnp.float32) for name in MODELS if isinstance(MODELS[name], MoE)]),
    ],
)
def test_every_gradient_is_finite_and_not_zero(name, dtype):
    variables = jax.tree.map(lambda x: jnp.asarray(x, dtype), variables_of(MODELS[name]))
    for x in jax.tree.leaves(gradient(MODELS[name], variables)):
        assert x.dtype == dtype and jnp.isfinite(x).all() and jnp.abs(x).max() > 0


LAYOUTS = [{"remat": "full"}, {"remat": "dots"}, {"unroll": 2}]


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *(("gpt", x) for x in LAYOUTS),
        *first(1, [("qwen 3", x) for x in LAYOUTS]),
        *first(1, [("qwen 1.5 moe", x) for x in LAYOUTS]),
    ],
    ids=str,
)
def test_rematerialization_and_unrolling_change_no_gradient(name, layout):
    model, keys_B = MODELS[name], None
    if name == "gpt":
        model, keys_B = model.clone(dropout=0.2), jax.random.split(jax.random.key(2), B)
    variables = variables_of(model)
    want, got = gradient(model, variables, keys_B), gradient(model.clone(**layout), variables, keys_B)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), got, want)


@pytest.mark.slow
@fast
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_parameters_in_bfloat16_work_with_a_cache(name):
    model = MODELS[name]
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), variables_of(model))
    logits, cache = jax.eval_shape(lambda c: model.apply(half, TOKENS, None, c), model.start(B, T))
    assert logits.dtype == jnp.bfloat16
    assert jax.tree.leaves(cache)[0].dtype == jnp.float32


@pytest.mark.slow
@fast
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_dtype_sets_the_type_of_products_and_of_cached_keys(name):
    """The states of a recurrent network stay in float32."""
    model = MODELS[name].clone(dtype=jnp.bfloat16)
    logits, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), TOKENS))
    assert logits.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(variables["params"])} == {jnp.dtype(jnp.float32)}
    _, cache = jax.eval_shape(lambda v, c: model.apply(v, TOKENS, None, c), variables, model.start(B, T))
    want = jnp.float32 if isinstance(model, RNN) else jnp.bfloat16
    assert jax.tree.leaves(cache)[0].dtype == jax.tree.leaves(model.start(B, T))[0].dtype == want


@fast
@pytest.mark.parametrize("name", ["gpt", "llama 2", "mixtral"])
def test_more_tokens_than_the_models_length_are_refused(name):
    model = MODELS[name]
    with pytest.raises(
        ValueError, match=rf"{type(model).__name__}: got 9 tokens; expected at most 8\. Shorten the windows"
    ):
        jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, T + 1), np.int32))
