"""Dimensions: B batch, H W C image, F features, K classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.models.cnn import CNN, LeNet

pytestmark = pytest.mark.fast


def count(model, *shape):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))["params"]
    return sum(x.size for x in jax.tree.leaves(shapes))


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.slow
def test_parameters_match_the_hand_count():
    """Two stages leave 7 x 7 x 64: 9 x 1 x 32 + 32, 9 x 32 x 64 + 64, 3136 x 128 + 128, 128 x 10 + 10."""
    assert count(CNN(10), 1, 28, 28, 1) == 320 + 18_496 + 401_536 + 1_290 == 421_642


def test_with_batch_norm_scale_and_shift_take_the_place_of_the_bias():
    assert count(CNN(10, batch_norm=True), 1, 28, 28, 1) == 421_642 + 32 + 64


def test_without_a_hidden_layer_the_head_reads_the_features():
    """9 x 3 x 2 + 2, then 4 x 4 x 2 features to 5 classes."""
    assert count(CNN(5, channels=(2,), hidden=0), 1, 8, 8, 3) == 56 + 32 * 5 + 5


def convolved(x_BHWC, kernel, bias):
    """Cross-correlation with zero padding, one output at a time."""
    B, H, W, _ = x_BHWC.shape
    padded = np.pad(x_BHWC, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = np.zeros((B, H, W, kernel.shape[-1]))
    for i, j in np.ndindex(H, W):
        out[:, i, j] = np.einsum("bhwc,hwcf->bf", padded[:, i : i + 3, j : j + 3], kernel) + bias
    return out


def pooled(x_BHWF):
    return np.stack([x_BHWF[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]).max(0)


@pytest.mark.slow
def test_it_equals_the_loops():
    model, x = CNN(5, channels=(3, 4), hidden=6), images(2, 8, 4, 2)
    params = jax.jit(model.init)(jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda p: p + 0.1, params)  # biases start at zero, where they would not be seen
    h = x
    for name in ("conv_0", "conv_1"):
        h = pooled(np.maximum(convolved(h, params[name]["kernel"], params[name]["bias"]), 0))
    h = np.maximum(h.reshape(2, -1) @ params["dense"]["kernel"] + params["dense"]["bias"], 0)
    want = h @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)({"params": params}, x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_batch_norm_keeps_a_tenth_of_each_batch_while_training_and_nothing_else():
    model, x = CNN(5, channels=(3,), hidden=0, batch_norm=True), images(4, 4, 4, 1)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    keys_B = jax.random.split(jax.random.key(1), 4)
    _, after = jax.jit(lambda v: model.apply(v, x, keys_B, mutable=["batch_stats"]))(variables)
    seen = convolved(x, variables["params"]["conv_0"]["kernel"], 0.0)
    statistics = after["batch_stats"]["norm_0"]
    np.testing.assert_allclose(statistics["mean"], 0.1 * seen.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * seen.var((0, 1, 2)), rtol=1e-4, atol=1e-5)
    _, same = model.apply(variables, x, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, same["batch_stats"], variables["batch_stats"])


@pytest.mark.slow
def test_batch_norm_normalises_by_the_running_statistics_in_evaluation():
    model, x = CNN(5, channels=(3,), hidden=0, batch_norm=True), images(4, 4, 4, 1)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    mean, var = np.array([0.1, -0.2, 0.3], np.float32), np.array([0.5, 1.0, 2.0], np.float32)
    variables = {**variables, "batch_stats": {"norm_0": {"mean": mean, "var": var}}}
    params = variables["params"]
    h = (convolved(x, params["conv_0"]["kernel"], 0.0) - mean) / np.sqrt(var + 1e-5)
    want = pooled(np.maximum(h, 0)).reshape(4, -1) @ params["head"]["kernel"]
    np.testing.assert_allclose(jax.jit(model.apply)(variables, x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 8, 1), (1, 8, 3, 1), (8, 8, 1)])
def test_images_too_small_for_the_stages_are_refused(shape):
    with pytest.raises(
        ValueError,
        match=r"CNN: got a batch of shape .* of at least 4x4, by 2 stages\. Resize the images or use fewer",
    ):
        jax.eval_shape(CNN(5).init, jax.random.key(0), jnp.zeros(shape))


@pytest.mark.slow
@given(
    st.integers(1, 3),
    st.integers(4, 9),
    st.integers(4, 9),
    st.integers(1, 3),
    st.lists(st.integers(1, 3), max_size=2),
    st.integers(0, 3),
)
def test_any_image_gives_a_row_of_logits(B, H, W, C, channels, hidden):
    model = CNN(5, channels=tuple(channels), hidden=hidden)
    y, variables = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x), jnp.zeros((B, H, W, C))
    )
    assert (y.shape, y.dtype) == ((B, 5), jnp.float32)
    n = len(channels)
    features = (H >> n) * (W >> n) * (channels[-1] if channels else C)
    first = variables["params"]["dense" if hidden else "head"]["kernel"]
    assert first.shape[0] == features


def test_lenet_matches_the_hand_count():
    """Convolutions 6 x 25 + 6, 16 x 150 + 16, 120 x 400 + 120; then 84 x 120 + 84 and 10 x 84 + 10."""
    assert (
        count(LeNet(), 1, 32, 32, 1)
        == count(LeNet(), 1, 28, 28, 1)
        == 156 + 2_416 + 48_120 + 10_164 + 850
        == 61_706
    )


@pytest.mark.slow
def test_lenet_sees_a_small_image_with_a_border_of_zeros():
    model, x = LeNet(), images(2, 28, 28, 1)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    np.testing.assert_array_equal(jax.jit(model.apply)(variables, x), jax.jit(model.apply)(variables, padded))


def test_lenet_refuses_other_sizes():
    with pytest.raises(
        ValueError, match=r"LeNet: got images of 64x64; expected 32x32 or 28x28\. Resize the images"
    ):
        count(LeNet(), 1, 64, 64, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        (CNN(5), {"stage_1": (14, 32), "stage_2": (7, 64)}),
        (LeNet(5), {"stage_1": (14, 6), "stage_2": (5, 16), "stage_3": (1, 120)}),
    ],
)
def test_features_are_maps_by_stage(model, sizes):
    x = jnp.zeros((2, 28, 28, 1))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    maps = jax.eval_shape(lambda v: model.apply(v, x, method="features"), variables)
    assert {name: m.shape for name, m in maps.items()} == {
        name: (2, H, H, C) for name, (H, C) in sizes.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(("model", "bare", "width"), [(CNN(5), CNN(0), 128), (LeNet(5), LeNet(0), 84)])
def test_without_classes_there_is_no_head(model, bare, width):
    x = images(2, 28, 28, 1)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    head = variables["params"]["head"]
    rest = {"params": {name: p for name, p in variables["params"].items() if name != "head"}}
    features = jax.jit(bare.apply)(rest, x)
    assert features.shape == (2, width)
    np.testing.assert_allclose(
        jax.jit(model.apply)(variables, x), features @ head["kernel"] + head["bias"], rtol=1e-4, atol=1e-5
    )
