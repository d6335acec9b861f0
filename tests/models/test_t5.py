"""Dimensions: B batch, S tokens of the source, T of the target, H heads, D width of a head, M width, V vocabulary."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instances import first

from jaxmodels.models import t5
from jaxmodels.models.t5 import T5, bucket

B, S, T, V, M, H, D, L, F = 3, 5, 6, 11, 8, 2, 3, 2, 12
MODEL = T5(V, M, L, H, D, F, buckets=4, furthest=5)
RANDOM = np.random.default_rng(0)
SOURCE = RANDOM.integers(0, V, (B, S)).astype(np.int32)
TARGET = RANDOM.integers(0, V, (B, T)).astype(np.int32)
COUNTS = np.array([5, 2, 4])
SEGMENTS = (np.arange(S) < COUNTS[:, None]).astype(np.int32)
APPLY = jax.jit(MODEL.apply, static_argnames="method")

fast = pytest.mark.fast


@pytest.fixture(scope="module")
def variables():
    """Parameters of which none is one, as scales are at first."""
    variables = jax.jit(MODEL.init)(jax.random.key(0), SOURCE, TARGET)
    leaves, tree = jax.tree.flatten(variables)
    random = np.random.default_rng(1)
    return jax.tree.unflatten(
        tree, [x + 0.3 * random.normal(size=x.shape).astype(np.float32) for x in leaves]
    )


def answer(variables, source=SOURCE, target=TARGET):
    return APPLY(variables, source, target, None, SEGMENTS)


@fast
@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (t5.t5_small, 60_506_624),
        (t5.t5_base, 222_903_552),
        (t5.t5_large, 737_668_096),
        (t5.t5_3b, 2_851_598_336),
        (t5.t5_11b, 11_307_321_344),
        (t5.t5_v1_1_small, 76_961_152),
        (t5.t5_v1_1_base, 247_577_856),
        (t5.t5_v1_1_large, 783_150_080),
        (t5.t5_v1_1_xl, 2_849_757_184),
        (t5.t5_v1_1_xxl, 11_135_332_352),
    ],
)
def test_sizes_match_the_hand_count(model, parameters):
    made = model()
    M, N, F, H, V = made.width, made.heads * made.head_width, made.hidden_width, made.heads, 32128
    attention, mlp = 4 * M * N, (3 if made.gated else 2) * M * F
    layers = made.depth * ((attention + mlp + 2 * M) + (2 * attention + mlp + 3 * M))
    text = jnp.zeros((1, 4), jnp.int32)
    shapes = jax.eval_shape(made.init, jax.random.key(0), text, text)
    got = sum(x.size for x in jax.tree.leaves(shapes))
    assert got == (1 if made.tied else 2) * V * M + layers + 2 * 32 * H + 2 * M == parameters


@fast
def test_near_keys_have_buckets_of_their_own_and_far_ones_share():
    """By hand, for 8 buckets and 16 places: causal 0 to 3 alone, then 4-5, 6-7, 8-11 and the rest."""
    back = np.arange(20)
    got = bucket(-jnp.asarray(back), both_ways=False, buckets=8, furthest=16)
    np.testing.assert_array_equal(got, [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7])
    np.testing.assert_array_equal(bucket(jnp.asarray(back), both_ways=False, buckets=8, furthest=16), 0)
    one_side = bucket(-jnp.asarray(back), both_ways=True, buckets=16, furthest=16)
    np.testing.assert_array_equal(one_side, got)
    np.testing.assert_array_equal(
        bucket(jnp.asarray(back[1:]), both_ways=True, buckets=16, furthest=16), 8 + got[1:]
    )


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (8, 20), (16, 100), (6, 50)])
def test_buckets_equal_those_of_transformers(both_ways, buckets, furthest):
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
    ahead = np.arange(-300, 301)
    want = modeling.T5Attention._relative_position_bucket(torch.tensor(ahead), both_ways, buckets, furthest)
    got = bucket(jnp.asarray(ahead), both_ways=both_ways, buckets=buckets, furthest=furthest)
    np.testing.assert_array_equal(got, want)


@fast
def test_no_logit_sees_a_later_token_of_the_target(variables):
    changed = TARGET.copy()
    changed[:, 3] = (changed[:, 3] + 1) % V
    before, after = answer(variables), answer(variables, target=changed)
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    assert np.abs(after[:, 3:] - before[:, 3:]).max(-1).min() > 1e-4


@fast
def test_padding_of_the_source_changes_nothing(variables):
    changed = np.where(SEGMENTS == 0, (SOURCE + 3) % V, SOURCE)
    np.testing.assert_array_equal(answer(variables, changed), answer(variables))
    for b, n in enumerate(COUNTS):
        alone = APPLY(variables, SOURCE[b : b + 1, :n], TARGET[b : b + 1])
        np.testing.assert_allclose(answer(variables)[b], alone[0], rtol=1e-4, atol=1e-5)


@fast
def test_pairs_packed_into_a_row_do_not_see_each_other(variables):
    sources, targets = (SOURCE[:1, :3], SOURCE[:1, 3:]), (TARGET[:1, :2], TARGET[:1, 2:])
    source_segments, segments = (
        np.array([[1, 1, 1, 2, 2]], np.int32),
        np.array([[1, 1, 2, 2, 2, 2]], np.int32),
    )
    got = APPLY(variables, SOURCE[:1], TARGET[:1], None, source_segments, segments)
    want = [APPLY(variables, *pair) for pair in zip(sources, targets, strict=True)]
    np.testing.assert_allclose(got, np.concatenate(want, 1), rtol=1e-4, atol=1e-5)


@fast
@pytest.mark.parametrize("sizes", [(6,), (1, 1, 1, 1, 1, 1), (3, 1, 2)], ids=str)
def test_reading_the_target_in_chunks_with_a_cache_equals_reading_it_at_once(variables, sizes):
    source, cache = (
        (APPLY(variables, SOURCE, None, SEGMENTS, method="encode"), SEGMENTS),
        MODEL.start(B, T + 2),
    )
    parts = []
    for chunk in np.split(TARGET, np.cumsum(sizes)[:-1], axis=1):
        x, cache = APPLY(variables, chunk, *source, None, cache, method="hidden")
        source = None, None
        parts.append(x)
    got = np.concatenate(parts, 1) @ variables["params"]["embed"]["embedding"].T
    np.testing.assert_allclose(got, answer(variables), rtol=1e-4, atol=1e-5)
    assert {x.shape[:2] for x in jax.tree.leaves(cache)} == {(L, B)} and len(jax.tree.leaves(cache)) == 6


@fast
def test_rows_of_different_lengths_go_on_from_their_own_ends(variables):
    hidden = partial(APPLY, variables, method="hidden")
    memory = APPLY(variables, SOURCE, None, SEGMENTS, method="encode")
    counts = np.array([1, 4, 2], np.int32)
    _, cache = hidden(TARGET[:, :4], memory, SEGMENTS, None, MODEL.start(B, T), counts)
    got, _ = hidden(TARGET[:, 4:], None, None, None, cache)
    for b, n in enumerate(counts):
        whole = np.concatenate([TARGET[b, :n], TARGET[b, 4:]])[None]
        want, _ = hidden(whole, memory[b : b + 1], SEGMENTS[b : b + 1])
        np.testing.assert_allclose(got[b], want[0, n:], rtol=1e-4, atol=1e-5)


@fast
def test_without_biases_the_places_of_the_source_do_not_matter(variables):
    """There is nothing else that says where a token is."""
    p = variables["params"]
    blind = {"params": {**p, "encoder_bias": jnp.zeros_like(p["encoder_bias"])}}
    turned = SOURCE[:, ::-1]
    np.testing.assert_allclose(
        APPLY(blind, turned, TARGET), APPLY(blind, SOURCE, TARGET), rtol=1e-4, atol=1e-5
    )
    assert np.abs(APPLY(variables, turned, TARGET) - APPLY(variables, SOURCE, TARGET)).max() > 1e-2


@fast
def test_dtype_sets_the_type_of_products_and_cache():
    model = MODEL.clone(dtype=jnp.bfloat16)
    logits, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), SOURCE, TARGET))
    assert logits.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert model.start(B, T).own.k_LBSGD.dtype == jnp.bfloat16


@pytest.mark.parametrize("options", first(1, [{"remat": "full"}, {"unroll": 2}]), ids=str)
def test_how_layers_are_laid_out_changes_no_gradient(variables, options):
    def gradient(model):
        return jax.jit(jax.grad(lambda v: jnp.sum(model.apply(v, SOURCE, TARGET, keys_B, SEGMENTS) ** 2)))(
            variables
        )

    keys_B = jax.random.split(jax.random.key(2), B)
    plain, other = gradient(MODEL.clone(dropout=0.2)), gradient(MODEL.clone(dropout=0.2, **options))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), other, plain)


@fast
def test_fewer_than_four_buckets_are_refused():
    with pytest.raises(ValueError, match=r"came 3 buckets for distances up to 5; wanted at least 4"):
        jax.eval_shape(MODEL.clone(buckets=3).init, jax.random.key(0), SOURCE, TARGET)
