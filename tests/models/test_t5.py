"""Dimensions: B batch, S tokens of the source, T of the target, H heads, D width of a head, M width,
V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.models import t5
from jaxmodels.models.t5 import T5, bucket

B, S, T, V, M, H, D, L, F = 3, 5, 6, 11, 8, 2, 3, 2, 12
MODEL = T5(V, M, L, H, D, F, buckets=4, furthest=5)
RANDOM = np.random.default_rng(0)
SOURCE = RANDOM.integers(0, V, (B, S)).astype(np.int32)
TARGET = RANDOM.integers(0, V, (B, T)).astype(np.int32)
APPLY = jax.jit(MODEL.apply)

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


@pytest.mark.slow
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


@pytest.mark.slow
@fast
def test_near_keys_have_buckets_of_their_own_and_far_ones_share():
    """By hand, for 8 buckets and 16 distances: causal 0 to 3 alone, then 4-5, 6-7, 8-11 and the rest."""
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


@pytest.mark.slow
@fast
def test_without_biases_the_order_of_the_source_does_not_matter(variables):
    """Nothing else depends on a token's position."""
    p = variables["params"]
    blind = {"params": {**p, "encoder_bias": jnp.zeros_like(p["encoder_bias"])}}
    turned = SOURCE[:, ::-1]
    np.testing.assert_allclose(
        APPLY(blind, turned, TARGET), APPLY(blind, SOURCE, TARGET), rtol=1e-4, atol=1e-5
    )
    assert np.abs(APPLY(variables, turned, TARGET) - APPLY(variables, SOURCE, TARGET)).max() > 1e-2


@pytest.mark.slow
@fast
def test_fewer_than_four_buckets_are_refused():
    with pytest.raises(ValueError, match=r"got 3 buckets for distances up to 5; expected at least 4"):
        jax.eval_shape(MODEL.clone(buckets=3).init, jax.random.key(0), SOURCE, TARGET)
