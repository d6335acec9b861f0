"""Dimensions: B batch, T tokens, H heads, D width of a head."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.layers.rope import Scaling, frequencies, rotate, rotations

pytestmark = pytest.mark.fast

B, T, H, D = 2, 9, 3, 8
SCALINGS = {
    "linear": Scaling("linear", 4.0),
    "llama3": Scaling("llama3", 8.0, 64, 1.0, 4.0),
    "yarn": Scaling("yarn", 4.0, 64, 1.0, 32.0),
    "yarn with an attention factor": Scaling("yarn", 4.0, 128, 2.0, 16.0, 0.75),
}
NAMES = {
    "linear": {},
    "llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    "yarn": {"original_max_position_embeddings": 64},
    "yarn with an attention factor": {
        "original_max_position_embeddings": 128,
        "beta_slow": 2.0,
        "beta_fast": 16.0,
        "attention_factor": 0.75,
    },
}


def vectors(seed):
    return np.random.default_rng(seed).normal(size=(B, T, H, D)).astype(np.float32)


@pytest.mark.slow
def test_each_pair_is_a_complex_number_that_turns():
    x, position_BT = vectors(0), np.random.default_rng(1).integers(0, 1000, (B, T))
    z = x[..., : D // 2] + 1j * x[..., D // 2 :].astype(np.float64)
    turned = z * np.exp(1j * position_BT[:, :, None, None] * 500.0 ** (-np.arange(0, D, 2) / D))
    got = rotate(jnp.asarray(x), rotations(jnp.asarray(position_BT), D, 500.0))
    np.testing.assert_allclose(got, np.concatenate([turned.real, turned.imag], -1), rtol=1e-3, atol=3e-4)


@pytest.mark.slow
@pytest.mark.parametrize("far", [1, 7, 100])
def test_products_of_queries_and_keys_depend_on_distance_alone(far):
    q, k = jnp.asarray(vectors(0)), jnp.asarray(vectors(1))

    def scores(first):
        rotation = rotations(first + jnp.arange(T)[None].repeat(B, 0), D)
        return jnp.einsum("BTHD,BSHD->BHTS", rotate(q, rotation), rotate(k, rotation))

    np.testing.assert_allclose(scores(far), scores(0), atol=2e-4)


def test_the_first_token_is_not_turned():
    x = jnp.asarray(vectors(0))
    np.testing.assert_array_equal(rotate(x, rotations(jnp.zeros((B, T), jnp.int32), D)), x)


def test_it_is_computed_in_float32_and_given_back_in_the_type_that_came():
    rotation = rotations(jnp.full((B, T), 4001), D)
    got = rotate(jnp.asarray(vectors(0), jnp.bfloat16), rotation)
    want = rotate(jnp.asarray(vectors(0), jnp.bfloat16).astype(jnp.float32), rotation)
    assert got.dtype == jnp.bfloat16 and rotation[0].dtype == jnp.float32
    np.testing.assert_array_equal(got, want.astype(jnp.bfloat16))


@pytest.mark.slow
@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("width", [8, 64])
def test_scalings_equal_those_of_transformers(name, width):
    pytest.importorskip("transformers")
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = SCALINGS[name]
    rope = {"rope_type": scaling.kind, "rope_theta": 1e4, "factor": scaling.factor, **NAMES[name]}
    config = LlamaConfig(
        hidden_size=2 * width, num_attention_heads=2, max_position_embeddings=512, rope_parameters=rope
    )
    want, size = ROPE_INIT_FUNCTIONS[scaling.kind](config)
    np.testing.assert_allclose(frequencies(width, 1e4, scaling), want.numpy(), rtol=1e-5)
    cos, _ = rotations(jnp.zeros((1, 1), jnp.int32), width, 1e4, scaling)
    np.testing.assert_allclose(cos, size, rtol=1e-6)


def test_llama3_keeps_fast_pairs_and_slows_slow_ones():
    plain, scaled = frequencies(64), frequencies(64, scaling=SCALINGS["llama3"])
    turns = 64 * plain / (2 * math.pi)
    np.testing.assert_allclose(scaled[turns > 4], plain[turns > 4])
    np.testing.assert_allclose(scaled[turns < 1], plain[turns < 1] / 8)
    assert (turns > 4).any() and (turns < 1).any()


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match=r"got heads of width 7; expected an even width.*Change the width"):
        jax.eval_shape(lambda: rotations(jnp.zeros((1, 1), jnp.int32), 7))


@pytest.mark.parametrize(
    ("scaling", "said"),
    [
        (
            Scaling("llama3", 8.0),
            r"got Scaling.*expected the length of the original training\. Give length",
        ),
        (Scaling("dynamic", 2.0, 8), r"got kind='dynamic'; expected one of 'linear', 'llama3', 'yarn'"),
    ],
    ids=["lacks", "unknown"],
)
def test_a_scaling_that_lacks_something_or_is_unknown_is_refused(scaling, said):
    with pytest.raises(ValueError, match=f"rope: {said}"):
        frequencies(8, scaling=scaling)
