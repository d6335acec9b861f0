"""DS-CNN: the trained weights of MLPerf Tiny, MobileNet's published size, and files that are no weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.convert.load import load_weights
from jaxmodels.data.datasets.kws import CLASSES, kws
from jaxmodels.models.ds_cnn import DSCNN, Separable, ds_cnn_s

SMALL = DSCNN(3, (Separable(4), Separable(5)), stem=4, kernel=(10, 4), norm="folded")


def test_the_trained_weights_name_keywords_as_their_own_runtime_does(real, monkeypatch):
    path = real("weights/kws_ds_cnn") / "ds_cnn.npz"
    monkeypatch.setenv("JAXMODELS_DATA", str(real("kws").parent))
    model = ds_cnn_s(classes=len(CLASSES), norm="folded")
    params = load_weights(model, path).params
    batch = kws("all", 1000).rows(0, 0, 1000)
    logits = jax.jit(lambda p, x: model.apply({"params": p}, x))(params, batch["image"])
    assert (logits.argmax(-1) == batch["label"]).mean() >= 0.90
    theirs = np.load(real("kws") / "kws01.npz", allow_pickle=False)["probability"]
    difference = abs(jax.nn.softmax(logits) - theirs).max(-1)
    assert np.quantile(difference, 0.9) < 0.05 and (logits.argmax(-1) == theirs.argmax(-1)).mean() > 0.98


def arrays(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 49, 10, 1)))["params"]
    random = np.random.default_rng(0)
    return {
        f"{layer}/{name}": random.normal(size=x.shape).astype(np.float32)
        for layer, params in shapes.items()
        for name, x in params.items()
    }


def test_a_depthwise_block_is_a_sum_over_each_channel_then_over_all(tmp_path):
    np.savez(tmp_path / "x.npz", **(held := arrays(SMALL)))
    params = load_weights(SMALL, tmp_path / "x.npz").params
    x = np.random.default_rng(1).normal(size=(1, 49, 10, 1)).astype(np.float32)
    maps = SMALL.apply({"params": params}, x, method="features")
    padded = np.pad(np.asarray(maps["stem"])[0], ((1, 1), (1, 1), (0, 0)))
    h, w = maps["stem"].shape[1:3]
    for row in (1, 2):
        kernel = held[f"depthwise_{row}/kernel"][:, :, 0]
        out = sum(padded[i : i + h, j : j + w] * kernel[i, j] for i in range(3) for j in range(3))
        out = np.maximum(out + held[f"depthwise_{row}/bias"], 0)
        out = np.maximum(out @ held[f"conv_{row}/kernel"][0, 0] + held[f"conv_{row}/bias"], 0)
        padded = np.pad(out, ((1, 1), (1, 1), (0, 0)))
    np.testing.assert_allclose(maps["stage_1"][0], out, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: held.pop("conv_1/bias"), "got no tensor 'conv_1/bias'"),
        (lambda held: held.update({"conv_9/bias": np.zeros(4)}), "conv_9/bias"),
        (lambda held: held.update({"dense/bias": np.zeros(4, np.float32)}), "dense/bias"),
        (lambda held: held.update({"dense/bias": np.full(3, np.nan, np.float32)}), "NaN or infinite"),
        (lambda held: held.update({"dense/bias": np.array(["a", "b", "c"])}), "expected numbers"),
        (lambda held: held.update({"dense/bias": np.array([None] * 3)}), r"no \.npz file of plain arrays"),
    ],
    ids=["absent", "more", "shape", "nan", "text", "objects"],
)
def test_files_that_are_no_such_weights_are_refused(tmp_path, change, said):
    held = arrays(SMALL)
    change(held)
    np.savez(tmp_path / "x.npz", **held)
    with pytest.raises(ValueError, match=said):
        load_weights(SMALL, tmp_path / "x.npz")


def test_a_normalised_network_is_not_filled_from_folded_weights(tmp_path):
    np.savez(tmp_path / "x.npz", **arrays(SMALL))
    with pytest.raises(ValueError, match=r'got a DSCNN with norm=.batch.; expected "folded"'):
        load_weights(SMALL.clone(norm="batch"), tmp_path / "x.npz", layout="mlperf-tiny")
    with pytest.raises(ValueError, match=r"DSCNN: got a batch of shape \(1, 49, 10\); expected"):
        SMALL.init(jax.random.key(0), jnp.zeros((1, 49, 10)))
