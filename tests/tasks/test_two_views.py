"""Learning from two views of an image: SimCLR, DINO and their projection head.

Dimensions: B batch, H W image, D width of a projection, F features.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.task import value
from jaxmodels.tasks import projection
from jaxmodels.tasks.dino import dino
from jaxmodels.tasks.projection import Projected, encoded, untrained_features
from jaxmodels.tasks.simclr import simclr

pytestmark = pytest.mark.fast

B, D = 5, 3
RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.normal(size=(B, 2, 2, 1)).astype(np.float32)
BATCH = {"image": IMAGE, "weight": np.array([1, 1, 1, 1, 0], np.float32)}
KEYS = jax.random.split(jax.random.key(0), B)


class Flat(nn.Module):
    """The first three pixels, times one."""

    @nn.compact
    def __call__(self, x, keys_B=None):
        return x.reshape(len(x), -1)[:, :D] * self.param("one", nn.initializers.ones, ())


def views(image, keys_B):
    """The image with noise by its key."""
    noise = jax.vmap(lambda key, x: jax.random.normal(key, x.shape))(keys_B, image)
    return image + 0.3 * noise


def seen(number: int) -> np.ndarray:
    keys_B = jax.vmap(jax.random.fold_in, (0, None))(KEYS, number)
    return np.asarray(views(IMAGE, keys_B)).reshape(B, -1)[:, :D].astype(np.float64)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.slow
def test_simclr_is_the_cross_entropy_of_finding_the_other_view_among_all_real_ones():
    z, real = unit(np.concatenate([seen(0), seen(1)])), np.tile(BATCH["weight"] > 0, 2)
    losses = []
    for i in np.flatnonzero(real):
        others = [j for j in np.flatnonzero(real) if j != i]
        scores = {j: z[i] @ z[j] / 0.5 for j in others}
        losses.append(np.log(sum(np.exp(s) for s in scores.values())) - scores[(i + B) % (2 * B)])
    loss, _, _ = jax.jit(simclr(Flat(), views, temperature=0.5).loss)({"one": np.float32(1)}, {}, BATCH, KEYS)
    assert value(loss) == pytest.approx(np.mean(losses), rel=1e-4)
    assert float(loss.weight) == 8


@pytest.mark.slow
def test_padding_is_nobodys_rival():
    changed = {
        **BATCH,
        "image": np.where(np.arange(B)[:, None, None, None] == 4, 9.0, IMAGE).astype(np.float32),
    }
    loss = jax.jit(simclr(Flat(), views).loss)
    params = {"one": np.float32(1)}
    assert value(loss(params, {}, changed, KEYS)[0]) == pytest.approx(
        value(loss(params, {}, BATCH, KEYS)[0]), rel=1e-6
    )


@pytest.mark.slow
def test_dino_is_the_cross_entropy_of_teacher_and_student_and_the_teacher_follows():
    task = dino(Flat(), views, momentum=0.9, temperature=0.5, teacher_temperature=0.25, center=0.8)
    params, extra = jax.jit(task.init)(jax.random.key(0), BATCH)
    params = {"one": np.float32(2)}
    extra = {**extra, "center": np.array([0.1, 0, -0.2], np.float32)}
    loss, after, _ = jax.jit(task.loss)(params, extra, BATCH, KEYS)

    def log_softmax(x):
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    first, second, real = seen(0), seen(1), BATCH["weight"] > 0
    total = []
    for taught, learned in ((first, second), (second, first)):
        wanted = np.exp(log_softmax((taught - extra["center"]) / 0.25))
        total.append(-(wanted * log_softmax(2 * learned / 0.5)).sum(-1)[real])
    assert value(loss) == pytest.approx(np.mean(total), rel=1e-4)
    assert float(after["teacher"]["one"]) == pytest.approx(0.9 * 1 + 0.1 * 2)
    mean = np.concatenate([first[real], second[real]]).mean(0)
    np.testing.assert_allclose(after["center"], 0.8 * extra["center"] + 0.2 * mean, rtol=1e-4)


@pytest.mark.slow
def test_the_encoders_features_are_found_within_what_was_trained():
    model = Projected(Flat(), hidden=4, width=2)
    params = jax.jit(model.init)(jax.random.key(0), IMAGE)["params"]
    got = jax.jit(encoded(Flat()))({**params, "encoder": {"one": jnp.float32(3)}}, {}, BATCH)
    np.testing.assert_allclose(got, 3 * IMAGE.reshape(B, -1)[:, :D], rtol=1e-6)


@pytest.mark.slow
def test_an_untrained_encoders_features_are_of_its_first_parameters_whatever_the_chunk(monkeypatch):
    monkeypatch.setattr(projection, "CHUNK", 2)
    encoder, key = nn.Dense(3), jax.random.key(5)
    flat = IMAGE.reshape(B, -1)
    want = encoder.apply(encoder.init(key, flat), flat)
    np.testing.assert_allclose(untrained_features(encoder, key, flat), want, rtol=1e-5)
