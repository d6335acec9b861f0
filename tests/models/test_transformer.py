"""Dimensions: B batch, S tokens of the source, T of the target, L layers, H heads, M width, F hidden,
V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.models.transformer import Transformer, sinusoids, transformer_base, transformer_big

B, S, T, V, M, H, L, F = 3, 5, 4, 11, 8, 2, 2, 12
MODEL = Transformer(V, M, L, H, F)
RANDOM = np.random.default_rng(0)
SOURCE = RANDOM.integers(0, V, (B, S)).astype(np.int32)
TARGET = RANDOM.integers(0, V, (B, T)).astype(np.int32)
COUNTS = np.array([5, 2, 4])
SEGMENTS = (np.arange(S) < COUNTS[:, None]).astype(np.int32)

fast = pytest.mark.fast


@pytest.fixture(scope="module")
def variables():
    """Parameters of which none is zero or one, as biases and scales are at first."""
    variables = jax.jit(MODEL.init)(jax.random.key(0), SOURCE, TARGET)
    leaves, tree = jax.tree.flatten(variables)
    random = np.random.default_rng(1)
    return jax.tree.unflatten(
        tree, [x + 0.3 * random.normal(size=x.shape).astype(np.float32) for x in leaves]
    )


APPLY = jax.jit(MODEL.apply)


def answer(variables):
    return APPLY(variables, SOURCE, TARGET, None, SEGMENTS)


def count(model):
    text = jnp.zeros((1, 4), jnp.int32)
    return sum(x.size for x in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0), text, text)))


@pytest.mark.slow
@fast
@pytest.mark.parametrize(
    ("model", "parameters", "papers"),
    [(transformer_base(), 63_045_632, 65e6), (transformer_big(), 214_171_648, 213e6)],
    ids=["base", "big"],
)
def test_sizes_match_the_hand_count_and_the_papers_within_four_percent(model, parameters, papers):
    M, F, L = model.width, model.hidden_width, model.depth
    mlp = M * F + F + F * M + M
    encoder, decoder = 4 * M * M + mlp + 2 * 2 * M, 8 * M * M + mlp + 3 * 2 * M
    assert count(model) == 37_000 * M + L * (encoder + decoder) == parameters
    assert parameters == pytest.approx(papers, rel=0.04)


@fast
def test_positions_are_the_papers_sines_and_cosines():
    got = sinusoids(jnp.array([[0, 1, 7]]), 6)[0]
    for row, position in zip(got, (0, 1, 7), strict=True):
        for i in range(3):
            angle = position / 10_000 ** (2 * i / 6)
            np.testing.assert_allclose(
                row[2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)], rtol=1e-5, atol=1e-6
            )


def numpy_transformer(p, source_S, target_T):
    """One pair without padding, in float64, head by head."""

    def dense(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    def add(x, y, norm):
        z = x + y
        z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
        return z * norm["scale"] + norm["bias"]

    def attend(x, y, block, prefix="", causal=False):
        q, k, v = (z @ block[prefix + name]["kernel"] for z, name in ((x, "query"), (y, "key"), (y, "value")))
        heads = []
        for h in range(H):
            at = slice(h * M // H, (h + 1) * M // H)
            scores = q[:, at] @ k[:, at].T / np.sqrt(M // H)
            if causal:
                scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, at])
        return np.concatenate(heads, -1) @ block[prefix + "out"]["kernel"]

    def mlp(x, block):
        return add(x, dense(np.maximum(dense(x, block["up"]), 0), block["down"]), block["norm_mlp"])

    table = p["embed"]["embedding"]
    x, y = (
        table[tokens] * np.sqrt(M) + np.asarray(sinusoids(jnp.arange(len(tokens))[None], M)[0], np.float64)
        for tokens in (source_S, target_T)
    )
    for i in range(L):
        block = jax.tree.map(lambda a, i=i: a[i], p["encoder"])
        x = add(x, attend(x, x, block), block["norm_attention"])
        x = mlp(x, block)
    for i in range(L):
        block = jax.tree.map(lambda a, i=i: a[i], p["decoder"])
        y = add(y, attend(y, y, block, causal=True), block["norm_attention"])
        y = add(y, attend(y, x, block, "source_"), block["norm_source"])
        y = mlp(y, block)
    return y @ table.T


@pytest.mark.slow
@fast
def test_it_equals_the_formulas_in_numpy(variables):
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    want = [numpy_transformer(p, SOURCE[b, :n], TARGET[b]) for b, n in enumerate(COUNTS)]
    np.testing.assert_allclose(answer(variables), np.stack(want), rtol=1e-5, atol=1e-5)


def test_its_layers_equal_those_of_torch(variables):
    torch = pytest.importorskip("torch")
    p = variables["params"]

    def tensor(x):
        return torch.tensor(np.asarray(x))

    def fill(layer, block):
        """Our numbers; torch's attention has biases, which are 0 here."""
        with torch.no_grad():
            for theirs, prefix in (("self_attn", ""), ("multihead_attn", "source_")):
                if prefix + "query" in block:
                    module = getattr(layer, theirs)
                    matrices = [block[prefix + name]["kernel"].T for name in ("query", "key", "value")]
                    module.in_proj_weight.copy_(tensor(np.concatenate(matrices)))
                    module.in_proj_bias.zero_()
                    module.out_proj.weight.copy_(tensor(block[prefix + "out"]["kernel"].T))
                    module.out_proj.bias.zero_()
            for module, name in ((layer.linear1, "up"), (layer.linear2, "down")):
                module.weight.copy_(tensor(block[name]["kernel"].T))
                module.bias.copy_(tensor(block[name]["bias"]))
            norms = [name for name in ("norm_attention", "norm_source", "norm_mlp") if name in block]
            for i, name in enumerate(norms, 1):
                getattr(layer, f"norm{i}").weight.copy_(tensor(block[name]["scale"]))
                getattr(layer, f"norm{i}").bias.copy_(tensor(block[name]["bias"]))
        return layer.eval()

    table = p["embed"]["embedding"]
    x, y = (
        tensor(table[tokens] * M**0.5 + sinusoids(jnp.arange(tokens.shape[1])[None], M))
        for tokens in (SOURCE, TARGET)
    )
    padding = tensor(SEGMENTS == 0)
    later = torch.triu(torch.ones(T, T, dtype=torch.bool), 1)
    sizes = {"dim_feedforward": F, "dropout": 0.0, "batch_first": True}
    for i in range(L):
        layer = fill(
            torch.nn.TransformerEncoderLayer(M, H, **sizes), jax.tree.map(lambda a, i=i: a[i], p["encoder"])
        )
        x = layer.train()(
            x, src_key_padding_mask=padding
        )  # in training it takes no other path, and there is no dropout
    for i in range(L):
        layer = fill(
            torch.nn.TransformerDecoderLayer(M, H, **sizes), jax.tree.map(lambda a, i=i: a[i], p["decoder"])
        )
        y = layer(y, x, tgt_mask=later, memory_key_padding_mask=padding)
    want = (y @ tensor(table).T).detach().numpy()
    np.testing.assert_allclose(answer(variables), want, rtol=1e-5, atol=1e-5)


@fast
def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(
        ValueError, match=r"got width 8 and 3 heads; expected a multiple of the number of heads"
    ):
        jax.eval_shape(MODEL.clone(heads=3).init, jax.random.key(0), SOURCE, TARGET)


@pytest.mark.slow
@fast
@given(
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_any_size_gives_logits_for_every_token(B, S, T, H, D, L):
    model = Transformer(V, H * D, L, H, F)
    texts = jnp.zeros((B, S), jnp.int32), jnp.zeros((B, T), jnp.int32)
    logits, _ = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), *texts))
    assert (logits.shape, logits.dtype) == ((B, T, V), jnp.float32)
