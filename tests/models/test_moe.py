"""Dimensions: B batch, T tokens, L layers, M width, F hidden, E experts, K experts of a token,
V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.layers.experts import Experts, imbalance
from jaxmodels.models.moe import MoE, mixtral_8x7b, qwen1_5_moe_a2_7b, qwen3_30b_a3b
from jaxmodels.tasks.language import next_token

B, T, V, M, L, E, K, F = 3, 8, 11, 8, 2, 5, 2, 6
SIZES = {"vocabulary": V, "length": T, "width": M, "depth": L, "heads": 4, "key_heads": 2}
SIZES |= {"experts": E, "chosen": K, "expert_width": F, "balance": 0.1}
TOKENS = np.random.default_rng(0).integers(0, V, (B, T)).astype(np.int32)
KINDS = {
    "mixtral": {"window": 3},
    "qwen 1.5": {"biases": ("query", "key", "value"), "shared_width": 7, "renormalise": False},
    "qwen 3": {"head_norm": True, "head_width": 6, "tied": True, "chosen": 3},
}

fast = pytest.mark.fast


def of(kind, **options):
    return MoE(**{**SIZES, **KINDS[kind], **options})


def random_like(shapes, seed=1):
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: 0.4 * random.normal(size=x.shape).astype(np.float32), shapes)


def variables_of(model, seed=1):
    """Parameters of which none is zero or one, as biases and scales are at first."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS)
    return {"params": random_like(shapes["params"], seed)}


def count(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8), jnp.int32))
    return sum(x.size for x in jax.tree.leaves(shapes["params"]))


def by_hand(V, M, L, H, G, D, E, F, *, more=0):
    attention = 2 * M * H * D + 2 * M * G * D
    return 2 * V * M + L * (attention + M * E + E * 3 * M * F + 2 * M + more) + M


@pytest.mark.slow
@fast
@pytest.mark.parametrize(
    ("size", "hand", "total"),
    [
        (mixtral_8x7b, by_hand(32000, 4096, 32, 32, 8, 128, 8, 14336), 46_702_792_704),
        (
            qwen1_5_moe_a2_7b,
            by_hand(151936, 2048, 24, 16, 16, 128, 60, 1408, more=3 * 2048 + 3 * 2048 * 5632 + 2048),
            14_315_784_192,
        ),
        (qwen3_30b_a3b, by_hand(151936, 2048, 48, 32, 4, 128, 128, 768, more=2 * 128), 30_532_122_624),
    ],
    ids=["mixtral_8x7b", "qwen1_5_moe_a2_7b", "qwen3_30b_a3b"],
)
def test_sizes_match_the_hand_count(size, hand, total):
    assert count(size()) == hand == total


def all_experts(p, x_TM, K, renormalise):
    """Every expert on every token, in float64; a token's own are those of the K highest scores."""
    logits = x_TM @ p["router"]["kernel"]
    scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chosen = np.argsort(np.argsort(-scores)) < K
    weights = np.where(chosen, scores, 0)
    if renormalise:
        weights /= weights.sum(-1, keepdims=True)
    y_TM = np.zeros_like(x_TM)
    for e in range(scores.shape[-1]):
        gate = x_TM @ p["gate"][e]
        y_TM += weights[:, e : e + 1] * ((gate / (1 + np.exp(-gate)) * (x_TM @ p["up"][e])) @ p["down"][e])
    return y_TM


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize(("E", "K"), [(5, 2), (3, 3), (4, 1), (16, 2)])
def test_sorted_experts_equal_a_loop_over_all_experts(E, K, renormalise):
    layer = Experts(E, K, F, renormalise=renormalise)
    x_BTM = np.random.default_rng(E).normal(size=(B, T, M)).astype(np.float32)
    params = random_like(jax.eval_shape(layer.init, jax.random.key(0), x_BTM)["params"], K)
    exact = jax.tree.map(np.float64, params)
    want = [all_experts(exact, x_TM, K, renormalise) for x_TM in np.float64(x_BTM)]
    np.testing.assert_allclose(jax.jit(layer.apply)({"params": params}, x_BTM), want, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@fast
def test_a_token_gets_its_experts_even_when_all_want_the_same():
    layer = Experts(E, 1, F)
    x_BTM = np.abs(np.random.default_rng(0).normal(size=(B, T, M))).astype(np.float32)
    params = random_like(jax.eval_shape(layer.init, jax.random.key(0), x_BTM)["params"])
    params["router"]["kernel"] = np.eye(E)[2] * np.ones((M, 1), np.float32)  # all positive, so expert 2 wins
    exact = jax.tree.map(np.float64, params)
    want = [all_experts(exact, x_TM, 1, True) for x_TM in np.float64(x_BTM)]
    np.testing.assert_allclose(layer.apply({"params": params}, x_BTM), want, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@fast
def test_the_gradient_of_sorted_experts_equals_that_of_all_experts():
    layer = Experts(E, K, F)
    x_BTM = jnp.asarray(np.random.default_rng(4).normal(size=(B, T, M)), jnp.float32)
    params = random_like(jax.eval_shape(layer.init, jax.random.key(0), x_BTM)["params"])

    def dense(p):
        scores = jax.nn.softmax(x_BTM @ p["router"]["kernel"])
        weights = jnp.where(scores >= jnp.sort(scores)[..., -K][..., None], scores, 0)
        weights /= weights.sum(-1, keepdims=True)
        hidden = jax.nn.silu(jnp.einsum("btm,emf->btef", x_BTM, p["gate"])) * jnp.einsum(
            "btm,emf->btef", x_BTM, p["up"]
        )
        return jnp.einsum("btef,efm,bte->btm", hidden, p["down"], weights)

    want = jax.grad(lambda p: jnp.sum(dense(p) ** 2))(params)
    got = jax.jit(jax.grad(lambda p: jnp.sum(layer.apply({"params": p}, x_BTM) ** 2)))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), got, want)


@pytest.mark.slow
@fast
def test_imbalance_is_one_for_equal_parts_and_the_number_of_experts_for_one_that_has_all():
    equal = jnp.full((1, 4, E), 1 / E)
    one = jax.nn.one_hot(jnp.zeros((1, 4), int), E)
    np.testing.assert_allclose(imbalance(equal, equal), [1.0], rtol=1e-6)
    np.testing.assert_allclose(imbalance(one, one), [E], rtol=1e-6)


@pytest.mark.slow
@fast
def test_the_balance_loss_of_an_example_follows_the_formula_over_its_real_tokens():
    random = np.random.default_rng(0)
    scores = random.dirichlet(np.ones(E), (B, T))
    share = np.eye(E)[random.integers(0, E, (B, T))]
    real = np.arange(T) < np.array([[8], [5], [0]])
    want = [
        E * sum(share[b, :n, e].mean() * scores[b, :n, e].mean() for e in range(E)) if n else 0.0
        for b, n in enumerate((8, 5, 0))
    ]
    np.testing.assert_allclose(
        imbalance(jnp.asarray(scores), jnp.asarray(share), jnp.asarray(real)), want, rtol=1e-5
    )


def sown(model, variables, *inputs):
    """The balance losses, L x B."""
    _, losses = model.apply(variables, *inputs, mutable=["losses"])
    (value_LB,) = losses["losses"]["blocks"]["experts"]["balance"]
    return value_LB


def test_the_balance_loss_of_an_example_does_not_depend_on_the_others():
    model = of("mixtral")
    variables = variables_of(model)
    together = sown(model, variables, TOKENS)
    alone = np.concatenate([sown(model, variables, row[None]) for row in TOKENS], 1)
    assert together.shape == (L, B)
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_padding_does_not_count_in_the_balance_loss():
    model = of("mixtral")
    variables = variables_of(model)
    segments = np.array([[1] * 5 + [0] * 3] * B, np.int32)
    padded = sown(model, variables, TOKENS, None, None, None, segments)
    np.testing.assert_allclose(padded, sown(model, variables, TOKENS[:, :5]), rtol=1e-4)


def test_the_language_task_adds_the_balance_loss():
    batch = {"inputs": TOKENS, "targets": TOKENS, "weight": np.ones((B, T), np.float32)}
    params = variables_of(of("mixtral"))["params"]
    losses = {}
    for balance in (0.0, 0.1):
        total, _, metrics = next_token(of("mixtral", balance=balance)).loss(params, {}, batch, None)
        losses[balance] = float(total.total)
    np.testing.assert_allclose(losses[0.1] - losses[0.0], float(metrics["auxiliary"].total), rtol=1e-3)
    assert float(metrics["auxiliary"].total) >= 0.1 * B * T * L * 0.9


def test_what_follows_the_last_token_that_counts_is_padding_to_the_language_task():
    """The last window of a text is filled up with tokens of weight 0, and has no segments."""
    params, task = variables_of(of("mixtral"))["params"], next_token(of("mixtral"))
    weight = np.tile((np.arange(T) < 5).astype(np.float32), (B, 1))
    weight[:, 1] = 0  # a token that is seen and not learned
    padded = task.loss(params, {}, {"inputs": TOKENS, "targets": TOKENS, "weight": weight}, None)[2]
    cut = {"inputs": TOKENS[:, :5], "targets": TOKENS[:, :5], "weight": weight[:, :5]}
    for name, mean in task.loss(params, {}, cut, None)[2].items():
        np.testing.assert_allclose(padded[name].total, mean.total, rtol=1e-4)


@fast
def test_more_experts_for_a_token_than_there_are_is_refused():
    with pytest.raises(
        ValueError, match=r"Experts: got 6 of 5 experts per token; expected from 1 to all of them"
    ):
        jax.eval_shape(of("mixtral", chosen=6).init, jax.random.key(0), TOKENS)
