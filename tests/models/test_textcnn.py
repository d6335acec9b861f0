"""Dimensions: B batch, T tokens, M width, F maps, V vocabulary, K classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.models.textcnn import TextCNN

pytestmark = pytest.mark.fast

B, T, V, M, F, K = 3, 7, 11, 5, 4, 2
SIZES = {"vocabulary": V, "classes": K, "width": M, "windows": (2, 3), "maps": F}
TOKENS = np.random.default_rng(0).integers(0, V, (B, T)).astype(np.int32)
MODEL = TextCNN(**SIZES)


@pytest.fixture(scope="module")
def variables():
    """Random parameters, none of them zero."""
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), TOKENS)
    random = np.random.default_rng(1)
    return jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), shapes)


def numpy_textcnn(p, tokens_T):
    """The logits of one text, window by window."""
    x = p["embed"]["embedding"][tokens_T]
    found = []
    for size in SIZES["windows"]:
        kernel, bias = p[f"conv_{size}"]["kernel"], p[f"conv_{size}"]["bias"]
        longer = np.concatenate([x, np.zeros((size - 1, M))])
        sums = [(longer[t : t + size, :, None] * kernel).sum((0, 1)) + bias for t in range(len(tokens_T))]
        found.append(np.maximum(sums, 0).max(0))
    return np.concatenate(found) @ p["head"]["kernel"] + p["head"]["bias"]


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 2, 7])
def test_it_equals_the_formula_in_numpy_also_for_texts_shorter_than_a_window(variables, length):
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    want = np.stack([numpy_textcnn(p, tokens_T) for tokens_T in TOKENS[:, :length]])
    np.testing.assert_allclose(MODEL.apply(variables, TOKENS[:, :length]), want, rtol=1e-4, atol=1e-5)


def test_kims_size_matches_the_hand_count():
    """Movie reviews have 18,765 words: V M + (3 + 4 + 5) M F + 3 F + 3 F K + K."""
    model = TextCNN(18_765, 2)
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS)
    want = 18_765 * 300 + 12 * 300 * 100 + 3 * 100 + 300 * 2 + 2
    assert sum(x.size for x in jax.tree.leaves(shapes)) == want == 5_990_402


@pytest.mark.slow
@pytest.mark.parametrize("edge", [(0, 4), (4, 0), (2, 3)], ids=["right", "left", "both"])
def test_padding_changes_no_logit(variables, edge):
    tokens = np.pad(TOKENS, ((0, 0), edge), constant_values=5)
    segments = np.pad(np.ones((B, T), np.int32), ((0, 0), edge))
    got = MODEL.apply(variables, tokens, segments_BT=segments)
    np.testing.assert_allclose(got, MODEL.apply(variables, TOKENS), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_texts_of_different_lengths_in_a_batch_equal_each_alone(variables):
    lengths = np.array([2, 7, 1])
    got = MODEL.apply(variables, TOKENS, segments_BT=(np.arange(T) < lengths[:, None]).astype(np.int32))
    for b, n in enumerate(lengths):
        np.testing.assert_allclose(
            got[b], MODEL.apply(variables, TOKENS[b : b + 1, :n])[0], rtol=1e-5, atol=1e-5
        )


@pytest.mark.slow
def test_a_text_without_tokens_gives_the_bias_of_the_head(variables):
    got = MODEL.apply(variables, TOKENS, segments_BT=np.zeros((B, T), np.int32))
    np.testing.assert_array_equal(got, np.tile(variables["params"]["head"]["bias"], (B, 1)))


@pytest.mark.slow
def test_windows_of_one_token_do_not_see_the_order(variables):
    model = TextCNN(**{**SIZES, "windows": (1,)})
    variables = {
        "params": {
            **variables["params"],
            "conv_1": {"kernel": np.ones((1, M, F), np.float32), "bias": np.zeros(F)},
        }
    }
    variables["params"]["head"] = {"kernel": np.ones((F, K), np.float32), "bias": np.zeros(K, np.float32)}
    np.testing.assert_allclose(
        model.apply(variables, TOKENS), model.apply(variables, TOKENS[:, ::-1]), rtol=1e-5
    )


@pytest.mark.slow
def test_dropout_needs_keys_and_differs_between_examples(variables):
    same = np.tile(TOKENS[:1], (B, 1))
    plain = MODEL.apply(variables, same)
    np.testing.assert_allclose(plain, np.tile(plain[:1], (B, 1)), rtol=1e-5)
    random = MODEL.apply(variables, same, jax.random.split(jax.random.key(0), B))
    assert np.abs(np.diff(random, axis=0)).max(1).min() > 1e-3


def test_dtype_sets_the_type_of_products_and_logits():
    model = TextCNN(**SIZES, dtype=jnp.bfloat16)
    logits, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), TOKENS))
    assert logits.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
