"""Dimensions: B batch, T tokens, L layers, H heads, M width, F hidden, V vocabulary."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.layers.slot_cache import SlotCache
from jaxmodels.models import gpt
from jaxmodels.models.gpt import GPT, gpt2_small

B, T, V, M, H, L = 3, 6, 11, 8, 2, 2
SIZES = {"vocabulary": V, "length": T, "width": M, "depth": L, "heads": H}
TOKENS = np.random.default_rng(0).integers(0, V, (B, T)).astype(np.int32)

fast = pytest.mark.fast


@pytest.fixture(scope="module")
def variables():
    """Parameters of which none is zero or one, as biases and scales are at first."""
    variables = jax.jit(GPT(**SIZES).init)(jax.random.key(0), TOKENS)
    leaves, tree = jax.tree.flatten(variables)
    random = np.random.default_rng(1)
    return jax.tree.unflatten(
        tree, [x + 0.3 * random.normal(size=x.shape).astype(np.float32) for x in leaves]
    )


def count(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, model.length), jnp.int32))
    return sum(x.size for x in jax.tree.leaves(shapes))


@pytest.mark.slow
@fast
def test_gpt2_small_matches_the_hand_count():
    M, V, T, L = 768, 50257, 1024, 12
    attention = M * 3 * M + 3 * M + M * M + M
    mlp = M * 4 * M + 4 * M + 4 * M * M + M
    norms = 2 * 2 * M
    assert count(gpt2_small()) == V * M + T * M + L * (attention + mlp + norms) + 2 * M == 124_439_808


@pytest.mark.slow
@fast
def test_an_untied_head_adds_one_matrix():
    assert count(GPT(**SIZES, tied=False)) == count(GPT(**SIZES)) + M * V


def numpy_gpt(p, tokens_T):
    """One sequence, in float64, head by head."""

    def norm(x, scale_shift):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * scale_shift["scale"] + scale_shift["bias"]

    def dense(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    n = len(tokens_T)
    x = p["embed"]["embedding"][tokens_T] + p["position"][:n]
    for i in range(L):
        block = jax.tree.map(lambda a: a[i], p["blocks"])  # noqa: B023
        qkv = dense(norm(x, block["norm_attention"]), block["qkv"]).reshape(n, H, 3, -1)
        q, k, v = (qkv[:, :, j].reshape(n, -1) for j in range(3))
        heads = []
        for h in range(H):
            at = slice(h * M // H, (h + 1) * M // H)
            scores = np.where(np.tri(n, dtype=bool), q[:, at] @ k[:, at].T / np.sqrt(M // H), -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, at])
        x = x + dense(np.concatenate(heads, -1), block["out"])
        u = dense(norm(x, block["norm_mlp"]), block["up"])
        u = 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
        x = x + dense(u, block["down"])
    return norm(x, p["norm"]) @ p["embed"]["embedding"].T


@pytest.mark.slow
@fast
def test_it_equals_the_formulas_in_numpy(variables):
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    want = np.stack([numpy_gpt(p, tokens_T) for tokens_T in TOKENS])
    np.testing.assert_allclose(jax.jit(GPT(**SIZES).apply)(variables, TOKENS), want, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@fast
@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (gpt.gpt2_medium, 354_823_168),
        (gpt.gpt2_large, 774_030_080),
        (gpt.gpt2_xl, 1_557_611_200),
        (gpt.gpt3_small, 125_226_240),
        (gpt.gpt3_175b, 174_604_259_328),
    ],
)
def test_sizes_match_the_hand_count(model, parameters):
    """V M + T M + L (12 M^2 + 13 M) + 2 M."""
    made = model()
    M, L = made.width, made.depth
    assert count(made) == 50257 * M + made.length * M + L * (12 * M * M + 13 * M) + 2 * M == parameters


@pytest.mark.slow
@fast
@pytest.mark.parametrize("name", ["medium", "large", "xl", "2_7b", "6_7b", "13b"])
def test_gpt3_sizes_are_within_three_percent_of_the_papers(name):
    papers = {"medium": 350e6, "large": 760e6, "xl": 1.3e9, "2_7b": 2.7e9, "6_7b": 6.7e9, "13b": 13e9}
    assert count(getattr(gpt, f"gpt3_{name}")()) == pytest.approx(papers[name], rel=0.03)


@pytest.mark.slow
@fast
def test_layers_that_end_a_residual_branch_start_smaller():
    """Section 2.3 of GPT-2: 0.02 / sqrt(2 L), so 0.005 for eight layers."""
    model = GPT(V, T, 64, 8, 2)
    p = jax.jit(model.init)(jax.random.key(0), TOKENS)["params"]
    deviations = {name: float(p["blocks"][name]["kernel"].std()) for name in ("qkv", "up", "out", "down")}
    assert deviations == pytest.approx({"qkv": 0.02, "up": 0.02, "out": 0.005, "down": 0.005}, rel=0.03)


@fast
def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(
        ValueError, match=r"GPT: got width 8 and 3 heads; expected a multiple of the number of heads"
    ):
        jax.eval_shape(GPT(**{**SIZES, "heads": 3}).init, jax.random.key(0), TOKENS)


@pytest.mark.slow
@fast
@given(
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
)
def test_any_size_gives_logits_for_every_token(B, T, H, D, L, tied):
    model = GPT(V, T + 1, H * D, L, H, tied=tied)
    tokens = jnp.zeros((B, T), jnp.int32)
    logits, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), tokens))
    assert (logits.shape, logits.dtype) == ((B, T, V), jnp.float32)
    M = H * D
    want = (2 - tied) * V * M + (T + 1) * M + L * (12 * M * M + 13 * M) + 2 * M
    assert sum(x.size for x in jax.tree.leaves(variables)) == want


def in_pairs(variables):
    """Parameters of a dense model for one with a band."""
    p = variables["params"]
    halves = {"dense": slice(0, None, 2), "banded": slice(1, None, 2)}
    blocks = {name: jax.tree.map(lambda x: x[part], p["blocks"]) for name, part in halves.items()}  # noqa: B023
    return {"params": {**p, "blocks": blocks}}


@fast
def test_a_band_as_long_as_the_text_is_dense_attention_and_a_shorter_one_is_not(variables):
    dense = GPT(**SIZES).apply(variables, TOKENS)
    for band in (T, T + 5):
        np.testing.assert_allclose(
            GPT(**SIZES, band=band).apply(in_pairs(variables), TOKENS), dense, rtol=1e-5, atol=1e-5
        )
    other = GPT(**SIZES, band=T - 1).apply(in_pairs(variables), TOKENS)
    np.testing.assert_allclose(other[:, :-1], dense[:, :-1], rtol=1e-5, atol=1e-5)  # they see all before
    assert np.abs(other[:, -1] - dense[:, -1]).max() > 1e-3


@fast
def test_every_second_layer_sees_its_band_alone(variables):
    """A change of the first token reaches the last through the dense layer, not through the banded one."""
    model = GPT(**SIZES, band=2)
    p = in_pairs(variables)
    dense = p["params"]["blocks"]["dense"]
    silent = {**dense, "out": jax.tree.map(jnp.zeros_like, dense["out"])}
    changed = TOKENS.copy()
    changed[:, 0] = (changed[:, 0] + 1) % V

    def moves(p):
        return np.abs(model.apply(p, changed) - model.apply(p, TOKENS)).max((0, 2)) > 1e-4

    assert moves(p).all()
    blocks = {**p["params"]["blocks"], "dense": silent}
    assert moves({"params": {**p["params"], "blocks": blocks}}).tolist() == [True, True] + [False] * (T - 2)


@pytest.mark.slow
@fast
@pytest.mark.parametrize(
    ("sizes", "message"), [({"band": 0}, "band=0"), ({"band": 2, "depth": 3}, "depth 3")]
)
def test_a_band_needs_a_token_and_pairs_of_layers(sizes, message):
    with pytest.raises(ValueError, match=rf"GPT: got .*{message}.*; expected a band of at least 1 token"):
        jax.eval_shape(GPT(**{**SIZES, **sizes}).init, jax.random.key(0), TOKENS)


@fast
def test_a_band_holds_in_the_cache_that_serving_uses(variables):
    model, p = GPT(**SIZES, band=2), in_pairs(variables)
    slots, logits = SlotCache.empty(model.start(1, T + 4), B).burst(B, T, 4), []
    one = jax.jit(lambda tokens, slots: model.apply(p, tokens, None, slots, jnp.ones(B, jnp.int32)))
    for t in range(T):
        got, recent = one(TOKENS[:, t : t + 1], slots)
        slots = slots.with_recent(recent)
        slots = slots.settle().burst(B, T, 4) if t % 3 == 2 else slots
        logits.append(got)
    np.testing.assert_allclose(np.concatenate(logits, 1), model.apply(p, TOKENS), rtol=1e-4, atol=1e-4)
