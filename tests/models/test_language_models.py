"""What every language model and every encoder-decoder does: causality, cache, packing, gradients, types.

An encoder-decoder of one source is a language model of its target; the last tests are of its source.
Dimensions: B batch, S tokens of the source, T of the text, L layers, M width, V vocabulary.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instances import first

from jaxmodels.layers.rope import Scaling
from jaxmodels.models.gpt import GPT
from jaxmodels.models.llama import Llama
from jaxmodels.models.moe import MoE
from jaxmodels.models.rnn import RNN
from jaxmodels.models.t5 import T5
from jaxmodels.models.transformer import Transformer

B, S, T, V, M, L = 3, 6, 8, 11, 8, 2
RANDOM = np.random.default_rng(0)
TOKENS, SOURCE = (RANDOM.integers(0, V, (B, n)).astype(np.int32) for n in (T, S))
SEGMENTS = (np.arange(S) < np.array([[6], [2], [4]])).astype(np.int32)  # of the source
KEYS = jax.random.split(jax.random.key(2), B)

gpt = {"vocabulary": V, "length": T, "width": M, "depth": L, "heads": 2}
llama = {**gpt, "heads": 4, "key_heads": 2, "hidden_width": 12}
moe = {**gpt, "heads": 4, "key_heads": 2, "experts": 5, "chosen": 2, "expert_width": 6, "balance": 0.1}
MODELS = {
    "gpt": GPT(**gpt),
    "llama 2": Llama(**llama),
    "llama 3.1": Llama(**llama, theta=5e5, scaling=Scaling("llama3", 8.0, 4)),
    "mistral": Llama(**llama, window=3),
    "qwen 2": Llama(**llama, biases=("query", "key", "value"), tied=True),
    "qwen 3": Llama(**llama, head_norm=True, head_width=6, tied=True),
    "mixtral": MoE(**moe, window=3),
    "qwen 1.5 moe": MoE(**moe, biases=("query", "key", "value"), shared_width=7, renormalise=False),
    "qwen 3 moe": MoE(**{**moe, "chosen": 3}, head_norm=True, head_width=6, tied=True),
    **{cell: RNN(V, M, L, cell) for cell in ("elman", "lstm", "gru")},
    "transformer": Transformer(V, M, L, 2, 12),
    "t5": T5(V, M, L, 2, 3, 12, buckets=4, furthest=5),
}
EXPERTS, TRANSLATORS = ("mixtral", "qwen 1.5 moe", "qwen 3 moe"), ("transformer", "t5")
ONE_OF_EACH = ("gpt", "qwen 3", "qwen 1.5 moe", "lstm")
PARTS_OF_OTHERS = ("llama 2", "qwen 2", "mixtral")
MARKS = dict.fromkeys(("gpt", "elman", "lstm", "gru"), pytest.mark.fast)
MARKS |= dict.fromkeys(PARTS_OF_OTHERS, pytest.mark.thorough)


def source_of(name):
    return (SOURCE,) if name in TRANSLATORS else ()


def apply(name, model, variables, tokens=TOKENS, keys_B=None):
    return model.apply(variables, *source_of(name), tokens, keys_B, *[SEGMENTS] * (name in TRANSLATORS))


def variables_of(name, seed=1):
    """Parameters none of which is zero or one, as biases and scales are at first."""
    shapes = jax.eval_shape(MODELS[name].init, jax.random.key(0), *source_of(name), TOKENS)
    random = np.random.default_rng(seed)
    draw = jax.tree.map(lambda x: 0.4 * random.normal(size=x.shape).astype(np.float32), shapes["params"])
    return {"params": jax.tree.map(jnp.asarray, draw)}


class Family:
    """A model with its compiled programs, which all tests of the model share."""

    def __init__(self, name):
        self.name, self.model, self.variables = name, MODELS[name], variables_of(name)
        self.apply = partial(jax.jit(self.model.apply, static_argnames="method"), self.variables)
        self.logits = jax.jit(partial(apply, name, self.model, self.variables))

    def read(self, chunks, counts, room):
        """(logits of each chunk, cache); a source is read with the first chunk alone."""
        cache, parts, memory = self.model.start(B, room), [], ()
        if self.name in TRANSLATORS:
            memory = self.apply(SOURCE, None, SEGMENTS, method="encode"), SEGMENTS
        for chunk, count in zip(chunks, counts, strict=True):
            if memory:
                x_BTM, cache = self.apply(chunk, *memory, None, cache, count, method="hidden")
                logits, memory = x_BTM @ self.variables["params"]["embed"]["embedding"].T, (None, None)
            else:
                logits, cache = self.apply(chunk, None, cache, count)
            parts.append(np.asarray(logits))
        return parts, cache


@pytest.fixture(scope="module", params=[pytest.param(name, marks=MARKS.get(name, ())) for name in MODELS])
def family(request):
    return Family(request.param)


translator = pytest.mark.parametrize("family", TRANSLATORS, indirect=True)
language_model = pytest.mark.parametrize(
    "family", [pytest.param(n, marks=MARKS.get(n, ())) for n in MODELS if n not in TRANSLATORS], indirect=True
)
close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


def other(tokens, index):
    """The tokens with another one at this index of each row."""
    return np.where(np.arange(tokens.shape[1]) == index, (tokens + 1) % V, tokens)


def test_no_logit_depends_on_a_later_token(family):
    before, after = family.logits(TOKENS), family.logits(other(TOKENS, 3))
    # Experts sort all tokens together, so that rounding may differ.
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if family.name in EXPERTS else {"rtol": 0, "atol": 0}
    np.testing.assert_allclose(after[:, :3], before[:, :3], **tolerance)
    last = 5 if getattr(family.model, "window", None) else T
    assert np.abs(after[:, 3:last] - before[:, 3:last]).max(-1).min() > 1e-5


def test_rows_of_different_lengths_read_with_a_cache_equal_each_read_at_once(family):
    all_counts, chunks = np.array([(4, 1, 2), (1, 3, 4), (2, 4, 1), (1, 0, 1)], np.int32), []
    ends = np.cumsum(all_counts, 0)
    for counts, begins in zip(all_counts, ends - all_counts, strict=True):
        chunks.append(np.full((B, 4), 7, np.int32))
        for row, (n, begin) in enumerate(zip(counts, begins, strict=True)):
            chunks[-1][row, :n] = TOKENS[row, begin : begin + n]
    parts, cache = family.read(chunks, all_counts, T + 4)  # the last chunk's padding is written too
    for row in range(B):
        got = [part[row, : counts[row]] for part, counts in zip(parts, all_counts, strict=True)]
        close(np.concatenate(got), family.logits(TOKENS)[row])
    assert {x.shape[:2] for x in jax.tree.leaves(cache)} == {(L, B)}
    if family.name not in ("elman", "lstm", "gru"):
        np.testing.assert_array_equal(getattr(cache, "target", cache).length_LB, T)


def test_without_counts_every_token_of_a_chunk_is_real(family):
    parts, _ = family.read(np.split(TOKENS, (4, 5, 6, 7), axis=1), [None] * 5, T)
    close(np.concatenate(parts, 1), family.logits(TOKENS))


@language_model
def test_packed_documents_equal_each_on_its_own(family):
    segments = np.array([[1, 1, 1, 2, 2, 2, 2, 0]] * B, np.int32)
    packed = family.apply(TOKENS, segments_BT=segments)
    for begin, end in ((0, 3), (3, 7)):
        alone = family.logits(np.roll(TOKENS, -begin, 1))[:, : end - begin]  # later tokens change nothing
        close(packed[:, begin:end], alone)


def gradient(name, model, variables, keys_B=None):
    def loss(variables):
        return jnp.sum(apply(name, model, variables, keys_B=keys_B).astype(jnp.float32) ** 2)

    return jax.jit(jax.grad(loss))(variables)


# Experts in bfloat16, as a grouped product has gradients of its own there.
FLOAT32 = [(name, jnp.float32) for name in ("llama 3.1", "mistral", "qwen 2", "qwen 3")]
BFLOAT16 = [(name, jnp.bfloat16) for name in EXPERTS]


@pytest.mark.parametrize(
    ("name", "dtype"), first(7, FLOAT32 + BFLOAT16 + [(n, jnp.float32) for n in EXPERTS])
)
def test_every_gradient_is_finite_and_not_zero(name, dtype):
    variables = jax.tree.map(lambda x: jnp.asarray(x, dtype), variables_of(name))
    for x in jax.tree.leaves(gradient(name, MODELS[name], variables)):
        assert x.dtype == dtype and jnp.isfinite(x).all() and jnp.abs(x).max() > 0


LAYOUTS = [{"remat": "full"}, {"remat": "dots"}, {"unroll": 2}]
REST = [(name, layout) for layout in LAYOUTS for name in ("qwen 3", "qwen 1.5 moe", *TRANSLATORS)]


@pytest.mark.parametrize(("name", "layout"), first(7, [("gpt", x) for x in LAYOUTS] + REST), ids=str)
def test_rematerialization_and_unrolling_change_no_gradient(name, layout):
    model, keys_B, variables = MODELS[name], None, variables_of(name)
    if name in ("gpt", *TRANSLATORS):
        model, keys_B = model.clone(dropout=0.2), KEYS
    want, got = (gradient(name, m, variables, keys_B) for m in (model, model.clone(**layout)))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3), got, want)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_parameters_in_bfloat16_work_with_a_cache(name):
    model = MODELS[name]
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), variables_of(name))
    logits, cache = jax.eval_shape(lambda c: model.apply(half, TOKENS, None, c), model.start(B, T))
    assert logits.dtype == jnp.bfloat16
    assert jax.tree.leaves(cache)[0].dtype == jnp.float32


@pytest.mark.parametrize("name", [*ONE_OF_EACH, *TRANSLATORS])
def test_dtype_sets_the_type_of_products_and_of_cached_keys(name):
    """The states of a recurrent network stay in float32."""
    model = MODELS[name].clone(dtype=jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), *source_of(name), TOKENS)
    assert jax.eval_shape(lambda v: apply(name, model, v), variables).dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(variables["params"])} == {jnp.dtype(jnp.float32)}
    start = model.start(B, T)
    caches = [getattr(start, "target", start)]
    if name not in TRANSLATORS:
        caches.append(jax.eval_shape(lambda v, c: model.apply(v, TOKENS, None, c), variables, start)[1])
    for cache in caches:
        assert jax.tree.leaves(cache)[0].dtype == (jnp.float32 if name == "lstm" else jnp.bfloat16)


@pytest.mark.fast
@pytest.mark.parametrize("name", ["gpt", "llama 2", "mixtral"])
def test_more_tokens_than_the_models_length_are_refused(name):
    said = rf"{type(MODELS[name]).__name__}: got 9 tokens; expected at most 8\. Shorten the windows"
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(MODELS[name].init, jax.random.key(0), np.zeros((1, T + 1), np.int32))


@translator
def test_every_logit_depends_on_every_token_of_the_source_and_on_none_of_its_padding(family):
    before = family.logits(TOKENS)
    for s in range(2):  # the shortest source has two
        after = family.apply(other(SOURCE, s), TOKENS, None, SEGMENTS)
        assert np.abs(after - before).max(-1).min() > 1e-5
    padded = family.apply(np.where(SEGMENTS == 0, (SOURCE + 3) % V, SOURCE), TOKENS, None, SEGMENTS)
    np.testing.assert_array_equal(padded, family.logits(TOKENS))
    close(before[1:2], family.apply(SOURCE[1:2, :2], TOKENS[1:2]))


@translator
def test_packed_pairs_equal_each_on_its_own(family):
    """The first has 3 tokens of the source and 2 of the target, the second 3 and 4."""
    source_segments, segments = np.array([[1, 1, 1, 2, 2, 2]]), np.array([[1, 1, 2, 2, 2, 2]], np.int32)
    [packed] = family.apply(SOURCE[:1], TOKENS[:1, :6], None, source_segments, segments)
    targets = np.stack([TOKENS[0, :4], TOKENS[0, 2:6]])  # of the first, two more that change nothing
    alone = family.apply(SOURCE[0].reshape(2, 3), targets)
    close(packed, np.concatenate([alone[0, :2], alone[1]]))


@translator
def test_dropout_needs_keys_and_each_example_has_its_own(family):
    same = [np.repeat(x[:1], B, 0) for x in (SOURCE, TOKENS)]
    dropped = jax.jit(family.model.clone(dropout=0.3).apply)
    random = dropped(family.variables, *same, KEYS)
    assert min(np.abs(random[i] - random[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-3
    np.testing.assert_array_equal(dropped(family.variables, *same), family.apply(*same))
