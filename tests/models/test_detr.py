"""Dimensions: B batch, H W image, P positions of the map, Q queries, D width, K classes, L layers."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from foreign import count, random_images

from jaxmodels.models.detr import DETR, position_encoding
from jaxmodels.models.resnet import Basic, ResNet, resnet50

pytestmark = pytest.mark.fast

BACKBONE = ResNet(0, (1, 1), Basic, widths=(4, 6), stem="plain", stem_width=4)
MODEL = DETR(
    BACKBONE, "stage_2", classes=3, queries=5, width=8, heads=2, depth=2, hidden_width=12, dropout=0.0
)
X = random_images(2, 8, 12, 3)


@pytest.mark.slow
def test_the_published_size_matches_the_hand_count():
    """Without the backbone: projection, six layers of each kind, one norm, queries, classes, boxes."""
    D, F, K = 256, 2048, 91
    attention, mlp, norm = 4 * (D * D + D), 2 * D * F + F + D, 2 * D
    layers = 6 * (attention + mlp + 2 * norm) + 6 * (2 * attention + mlp + 3 * norm)
    heads = D * (K + 1) + K + 1 + 2 * (D * D + D) + D * 4 + 4
    want = 2048 * D + D + layers + norm + 100 * D + heads
    model = DETR(resnet50(0), "stage_4", classes=K)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    assert count(params) - count(params["backbone"]) == want
    assert count(params["backbone"]) == 25_557_032 - 2_049_000


@pytest.mark.slow
def test_it_equals_pytorch():
    torch = pytest.importorskip("torch")
    from torch.nn.functional import layer_norm, linear

    shapes = jax.eval_shape(lambda: MODEL.init(jax.random.key(0), X))
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda p: rng.normal(size=p.shape, scale=0.4).astype(np.float32), shapes)
    variables["batch_stats"] = jax.tree.map(lambda p: np.abs(p) + 0.5, variables["batch_stats"])
    params = variables["params"]

    def ours(v):
        return MODEL.apply(v, X), MODEL.apply(
            v, X, method=lambda model, x: model.backbone.features(x)["stage_2"]
        )

    got, features = jax.device_get(jax.jit(ours)(variables))

    def t(a):
        return torch.tensor(np.asarray(a))

    def dense(y, p):
        return linear(y, t(p["kernel"]).T, t(p["bias"]))

    def norm(y, p):
        return layer_norm(y, (8,), t(p["scale"]), t(p["bias"]), 1e-5)

    def attend(q, k, v, p, name):
        D = 8
        parts = [p[f"{name}_{part}"] for part in ("query", "key", "value")]
        return torch.nn.functional.multi_head_attention_forward(
            q.transpose(0, 1),
            k.transpose(0, 1),
            v.transpose(0, 1),
            D,
            2,
            torch.cat([t(part["kernel"]).T for part in parts]),
            torch.cat([t(part["bias"]) for part in parts]),
            None,
            None,
            False,
            0.0,
            t(p[f"{name}_out"]["kernel"]).T,
            t(p[f"{name}_out"]["bias"]),
            training=False,
        )[0].transpose(0, 1)

    def mlp(x, p):
        return norm(x + dense(torch.relu(dense(x, p["up"])), p["down"]), p["norm_mlp"])

    h, w = features.shape[1:3]
    kernel = params["project"]["kernel"][0, 0]
    x = (t(features) @ t(kernel) + t(params["project"]["bias"])).reshape(2, h * w, 8)
    encoding = t(position_encoding(h, w, 8))
    for i in range(2):
        p = jax.tree.map(lambda a, i=i: a[i], params["encoder"])
        x = mlp(norm(x + attend(x + encoding, x + encoding, x, p, "self"), p["norm_self"]), p)
    query, y = t(params["query"]), torch.zeros(2, 5, 8)
    for i in range(2):
        p = jax.tree.map(lambda a, i=i: a[i], params["decoder"])
        y = norm(y + attend(y + query, y + query, y, p, "self"), p["norm_self"])
        y = mlp(norm(y + attend(y + query, x + encoding, x, p, "cross"), p["norm_cross"]), p)
        out = norm(y, params["norm"])
        np.testing.assert_allclose(
            got.logits_LBQK[i], dense(out, params["head"]).numpy(), rtol=1e-3, atol=1e-4
        )
        boxes = dense(
            torch.relu(dense(torch.relu(dense(out, params["box_0"])), params["box_1"])), params["box_2"]
        ).sigmoid()
        cy, cx, height, width = boxes.unbind(-1)
        want = torch.stack(
            [(cy - height / 2) * 8, (cx - width / 2) * 12, (cy + height / 2) * 8, (cx + width / 2) * 12], -1
        )
        np.testing.assert_allclose(got.boxes_LBQ4[i], want.numpy(), rtol=1e-3, atol=1e-3)


def test_encodings_run_from_above_zero_to_two_pi_both_ways():
    got = position_encoding(2, 4, 8).reshape(2, 4, 8)
    for n, at, angle in ((4, 0, np.pi), (4, 1, 2 * np.pi)):
        np.testing.assert_allclose(
            got[at, :, :n], np.tile([np.sin(angle), np.cos(angle), *wave(angle)], (4, 1)), atol=1e-5
        )
    np.testing.assert_allclose(
        got[0, 2, 4:], [np.sin(1.5 * np.pi), np.cos(1.5 * np.pi), *wave(1.5 * np.pi)], atol=1e-5
    )


def wave(angle):
    return np.sin(angle / 100), np.cos(angle / 100)
