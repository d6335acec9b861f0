"""Dimensions: B batch, T tokens, L layers, H heads, G heads of keys and values, M width, F hidden,
V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


@pytest.mark.slow
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


@pytest.mark.slow
@fast
def test_a_window_hides_what_all_layers_together_cannot_reach():
    model = of("mistral")  # two layers that look back by two
    variables, apply = variables_of(model), jax.jit(model.apply)
    changed = TOKENS.copy()
    changed[:, 1] = (changed[:, 1] + 1) % V
    before, after = apply(variables, TOKENS), apply(variables, changed)
    np.testing.assert_array_equal(after[:, 6:], before[:, 6:])
    assert np.abs(after[:, 5] - before[:, 5]).max() > 1e-6


@fast
@pytest.mark.parametrize("heads", [(3, 3), (4, 3)], ids=str)
def test_heads_that_do_not_fit_are_refused(heads):
    model = of("llama 2", heads=heads[0], key_heads=heads[1])
    with pytest.raises(
        ValueError,
        match=r"Llama: got width 8, \d heads and 3 key/value heads; expected a width that the heads divide",
    ):
        jax.eval_shape(model.init, jax.random.key(0), TOKENS)
