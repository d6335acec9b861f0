"""Conformer: transformers' block, relative positions, padding. B batch, T frames, M width."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instances import first

from jaxmodels.models.conformer import Block, Conformer, conformer_s, distances, shifted

RANDOM = np.random.default_rng(0)
SMALL = Conformer(5, 8, 2, 2, kernel=3)


def test_scores_by_distance_become_scores_by_key():
    T = 4
    x = np.tile(np.arange(2 * T - 1), (1, 1, T, 1))  # index p is of the distance T - 1 - p
    want = [[T - 1 - (i - j) for j in range(T)] for i in range(T)]
    assert shifted(jnp.asarray(x))[0, 0].tolist() == want
    encoding = np.asarray(distances(T, 6))
    np.testing.assert_allclose(encoding[T - 1 - 2, 0], np.sin(2.0), rtol=1e-6)
    np.testing.assert_allclose(encoding[T - 1 + 3, 1], np.cos(-3.0), rtol=1e-6)


@pytest.fixture(scope="module")
def theirs():
    """A block of transformers in evaluation, with random weights and statistics."""
    torch = pytest.importorskip("torch", reason="needs torch")
    pytest.importorskip("transformers", reason="needs transformers")
    from transformers.models.wav2vec2_conformer import modeling_wav2vec2_conformer as theirs
    from transformers.models.wav2vec2_conformer.configuration_wav2vec2_conformer import (
        Wav2Vec2ConformerConfig,
    )

    config = Wav2Vec2ConformerConfig(
        hidden_size=8, num_attention_heads=2, intermediate_size=12, conv_depthwise_kernel_size=5,
        hidden_act="swish", position_embeddings_type="relative", attention_dropout=0.0,
    )  # fmt: skip
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    layer = theirs.Wav2Vec2ConformerEncoderLayer(config).eval()
    for name, x in {**dict(layer.named_parameters()), **dict(layer.named_buffers())}.items():
        if x.dtype.is_floating_point:
            x.data = torch.rand_like(x) * 0.8 + (0.3 if "var" in name else -0.4)
    return torch, layer, theirs.Wav2Vec2ConformerRelPositionalEmbedding(config)


def ours(layer):
    """The weights of a block of transformers by our names."""
    held = {name: x.detach().numpy() for name, x in layer.state_dict().items()}

    def dense(name):
        out = {"kernel": held[f"{name}.weight"].T}
        return out | ({"bias": held[f"{name}.bias"]} if f"{name}.bias" in held else {})

    def norm(name):
        return {"scale": held[f"{name}.weight"], "bias": held[f"{name}.bias"]}

    def feed(n):
        return {
            "norm": norm(f"ffn{n}_layer_norm"),
            "up": dense(f"ffn{n}.intermediate_dense"),
            "down": dense(f"ffn{n}.output_dense"),
        }

    conv, attention = "conv_module.", "self_attn."
    params = {
        "first": feed(1),
        "second": feed(2),
        "norm_attention": norm("self_attn_layer_norm"),
        "attention": {
            **{name: dense(f"{attention}linear_{name[0]}") for name in ("query", "key", "value")},
            "out": dense(f"{attention}linear_out"),
            "position": dense(f"{attention}linear_pos"),
            "content_bias": held[f"{attention}pos_bias_u"],
            "position_bias": held[f"{attention}pos_bias_v"],
        },
        "convolution": {
            "norm": norm(f"{conv}layer_norm"),
            "gate": {"kernel": held[f"{conv}pointwise_conv1.weight"][..., 0].T},
            "depthwise": {"kernel": held[f"{conv}depthwise_conv.weight"].transpose(2, 1, 0)},
            "norm_depthwise": norm(f"{conv}batch_norm"),
            "out": {"kernel": held[f"{conv}pointwise_conv2.weight"][..., 0].T},
        },
        "norm": norm("final_layer_norm"),
    }
    statistics = {
        "mean": held[f"{conv}batch_norm.running_mean"],
        "var": held[f"{conv}batch_norm.running_var"],
    }
    return {"params": params, "batch_stats": {"convolution": {"norm_depthwise": statistics}}}


def test_a_block_computes_what_that_of_transformers_computes(theirs):
    torch, layer, embedding = theirs
    x_BTM = RANDOM.normal(size=(2, 7, 8)).astype(np.float32)
    with torch.no_grad():
        want = layer(
            torch.from_numpy(x_BTM), relative_position_embeddings=embedding(torch.from_numpy(x_BTM))
        ).numpy()
    block = Block(2, 12, kernel=5, norm="batch")
    got = block.apply(ours(layer), x_BTM, None, jnp.ones((2, 7), bool))
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("halvings", first(1, [2, 0, 1]))
def test_padding_changes_no_real_frame(halvings):
    model = SMALL.clone(halvings=halvings)
    x = RANDOM.normal(size=(2, 11, 6)).astype(np.float32)
    count = np.array([11, 5])
    segments = (np.arange(11) < count[:, None]).astype(np.int32)
    params = model.init(jax.random.key(0), x)
    apply = jax.jit(model.apply)
    whole = apply(params, x, None, segments)
    padded = apply(
        params,
        np.pad(x, ((0, 0), (0, 5), (0, 0)), constant_values=9),
        None,
        np.pad(segments, ((0, 0), (0, 5))),
    )
    for row, n in enumerate(count):
        alone = apply(params, x[row : row + 1, :n])
        frames = -(-n // 2**halvings)
        for got in (whole, padded):
            assert int(got.segments_BT[row].sum()) == frames == alone.logits_BTK.shape[1]
            np.testing.assert_allclose(got.logits_BTK[row, :frames], alone.logits_BTK[0], atol=1e-5)


def test_attention_knows_distances_alone():
    """A block in which frames are shifted gives shifted frames, where nothing comes in at the edges."""
    block = Block(2, 12, kernel=3)
    x = RANDOM.normal(size=(1, 6, 8)).astype(np.float32)
    real = np.ones((1, 6), bool)
    params = block.init(jax.random.key(0), x, None, real)
    late = np.pad(x, ((0, 0), (4, 0), (0, 0)))
    apply = jax.jit(block.apply)
    got = apply(params, late, None, np.pad(real, ((0, 0), (4, 0))))
    np.testing.assert_allclose(got[:, 4:], apply(params, x, None, real), atol=1e-5)


def test_the_small_size_has_about_the_published_parameters():
    shapes = jax.eval_shape(conformer_s(classes=0).init, jax.random.key(0), jnp.zeros((1, 8, 80)))
    count = sum(x.size for x in jax.tree.leaves(shapes))
    assert 8.0e6 < count < 10.3e6  # 10.3 M with its decoder of one LSTM layer of 320


@pytest.mark.parametrize("change", [{"width": 6}, {"kernel": 4}])
def test_sizes_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError, match=r"expected .* an even width for each head and an odd kernel"):
        SMALL.clone(**change).init(jax.random.key(0), jnp.zeros((1, 8, 6)))
