"""Dimensions: B batch, T tokens, L layers, H heads, G heads of keys and values, M width, F hidden, V vocabulary."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instances import first

from jaxmodels.layers.rope import Scaling
from jaxmodels.models.llama import Llama, llama2_7b, llama3_8b, mistral_7b, qwen2_0_5b, qwen3_0_6b

B, T, V, M, H, G, L, F = 3, 8, 11, 8, 4, 2, 2, 12
SIZES = {"vocabulary": V, "length": T, "width": M, "depth": L, "heads": H, "key_heads": G, "hidden_width": F}
TOKENS = np.random.default_rng(0).integers(0, V, (B, T)).astype(np.int32)
KINDS = {
    "llama 2": {},
    "llama 3.1": {"theta": 5e5, "scaling": Scaling("llama3", 8.0, 4)},
    "mistral": {"window": 3},
    "qwen 2": {"biases": ("query", "key", "value"), "tied": True},
    "qwen 3": {"head_norm": True, "head_width": 6, "tied": True},
}

fast = pytest.mark.fast
kinds = pytest.mark.parametrize("kind", KINDS)


def of(kind, **options):
    return Llama(**{**SIZES, **KINDS[kind], **options})


def variables_of(model, seed=1):
    """Parameters of which none is zero or one, as biases and scales are at first."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS)
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: 0.4 * random.normal(size=x.shape).astype(np.float32), shapes)


def count(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8), jnp.int32))
    return sum(x.size for x in jax.tree.leaves(shapes))


def by_hand(V, M, L, H, G, D, F, *, tables=2, biases=0, norms=0):
    attention = 2 * M * H * D + 2 * M * G * D + biases + norms
    return tables * V * M + L * (attention + 3 * M * F + 2 * M) + M


@fast
@pytest.mark.parametrize(
    ("size", "hand", "total"),
    [
        (llama2_7b, by_hand(32000, 4096, 32, 32, 32, 128, 11008), 6_738_415_616),
        (llama3_8b, by_hand(128256, 4096, 32, 32, 8, 128, 14336), 8_030_261_248),
        (mistral_7b, by_hand(32000, 4096, 32, 32, 8, 128, 14336), 7_241_732_096),
        (qwen2_0_5b, by_hand(151936, 896, 24, 14, 2, 64, 4864, tables=1, biases=18 * 64), 494_032_768),
        (qwen3_0_6b, by_hand(151936, 1024, 28, 16, 8, 128, 3072, tables=1, norms=2 * 128), 596_049_920),
    ],
    ids=["llama2_7b", "llama3_8b", "mistral_7b", "qwen2_0_5b", "qwen3_0_6b"],
)
def test_sizes_match_the_hand_count(size, hand, total):
    assert count(size()) == hand == total


@kinds
def test_no_logit_sees_a_later_token(kind):
    model = of(kind)
    variables, apply = variables_of(model), jax.jit(model.apply)
    changed = TOKENS.copy()
    changed[:, 3] = (changed[:, 3] + 1) % V
    before, after = apply(variables, TOKENS), apply(variables, changed)
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    assert np.abs(after[:, 3:5] - before[:, 3:5]).max(-1).min() > 1e-4


@fast
def test_a_window_hides_what_all_layers_together_cannot_reach():
    model = of("mistral")  # two layers that look back by two
    variables, apply = variables_of(model), jax.jit(model.apply)
    changed = TOKENS.copy()
    changed[:, 1] = (changed[:, 1] + 1) % V
    before, after = apply(variables, TOKENS), apply(variables, changed)
    np.testing.assert_array_equal(after[:, 6:], before[:, 6:])
    assert np.abs(after[:, 5] - before[:, 5]).max() > 1e-6


@kinds
def test_rows_of_different_length_with_a_cache_equal_reading_each_at_once(kind):
    model = of(kind)
    variables = variables_of(model)
    whole = jax.jit(model.apply)(variables, TOKENS)
    apply = jax.jit(lambda tokens, cache, count: model.apply(variables, tokens, None, cache, count))
    read = np.zeros(B, int)
    cache = model.start(B, T + 4)  # room for what fills up the last chunk
    for counts in ((4, 1, 2), (1, 3, 4), (2, 4, 1), (1, 0, 1)):
        chunk = np.full((B, 4), 7, np.int32)
        for row, n in enumerate(counts):
            chunk[row, :n] = TOKENS[row, read[row] : read[row] + n]
        logits, cache = apply(chunk, cache, jnp.asarray(counts))
        for row, n in enumerate(counts):
            np.testing.assert_allclose(
                logits[row, :n], whole[row, read[row] : read[row] + n], rtol=1e-4, atol=1e-4
            )
        read += counts
    np.testing.assert_array_equal(read, T)


@kinds
def test_packed_documents_equal_each_on_its_own(kind):
    model = of(kind)
    variables = variables_of(model)
    segments = np.array([[1, 1, 1, 2, 2, 2, 2, 0]] * B, np.int32)
    packed = jax.jit(model.apply)(variables, TOKENS, None, None, None, segments)
    for begin, end in ((0, 3), (3, 7)):
        alone = model.apply(variables, TOKENS[:, begin:end])
        np.testing.assert_allclose(packed[:, begin:end], alone, rtol=1e-4, atol=1e-4)


@kinds
def test_every_gradient_is_finite_and_not_zero(kind):
    model = of(kind)
    gradients = jax.jit(jax.grad(lambda v: jnp.sum(model.apply(v, TOKENS) ** 2)))(variables_of(model))
    assert all(np.isfinite(x).all() and np.abs(x).max() > 0 for x in jax.tree.leaves(gradients))


@pytest.mark.parametrize("options", first(1, [{"remat": "full"}, {"remat": "dots"}, {"unroll": 2}]), ids=str)
def test_how_layers_are_laid_out_changes_no_gradient(options):
    variables = variables_of(of("qwen 3"))

    def gradient(model):
        return jax.jit(jax.grad(lambda v: jnp.sum(model.apply(v, TOKENS) ** 2)))(variables)

    plain, other = gradient(of("qwen 3")), gradient(of("qwen 3", **options))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), other, plain)


@fast
def test_parameters_in_bfloat16_work_with_a_cache():
    model = of("qwen 3")
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), variables_of(model))
    logits, cache = jax.eval_shape(lambda c: model.apply(half, TOKENS, None, c), model.start(B, T))
    assert logits.dtype == jnp.bfloat16 and cache.k_LBSGD.dtype == jnp.float32


@fast
def test_dtype_sets_the_type_of_products_and_cache():
    model = of("qwen 2", dtype=jnp.bfloat16)
    logits, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), TOKENS))
    assert logits.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert model.start(B, T).k_LBSGD.dtype == jnp.bfloat16


@fast
def test_more_tokens_than_it_can_see_are_refused():
    with pytest.raises(ValueError, match=r"Llama: got 9 tokens; expected at most 8\. Shorten the windows"):
        jax.eval_shape(of("llama 2").init, jax.random.key(0), np.zeros((1, T + 1), np.int32))


@fast
@pytest.mark.parametrize("heads", [(3, 3), (4, 3)], ids=str)
def test_heads_that_do_not_fit_are_refused(heads):
    model = of("llama 2", heads=heads[0], key_heads=heads[1])
    with pytest.raises(
        ValueError,
        match=r"Llama: got width 8, \d heads and 3 key/value heads; expected a width that the heads divide",
    ):
        jax.eval_shape(model.init, jax.random.key(0), TOKENS)
