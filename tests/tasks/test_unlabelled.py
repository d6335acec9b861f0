"""Representations without labels. Dimensions: B batch, H W image, N patches, D width of what is compared, F features."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.models.mae import MAE
from jaxmodels.models.vit import Block, ViT
from jaxmodels.scores.probes import linear_probe, nearest_neighbours, score
from jaxmodels.task import value
from jaxmodels.tasks import mae as masking
from jaxmodels.tasks.contrast import Projected, dino, encoded, simclr
from jaxmodels.tasks.mae import mae, restore

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


def test_the_encoders_features_are_found_within_what_was_trained():
    model = Projected(Flat(), hidden=4, width=2)
    params = jax.jit(model.init)(jax.random.key(0), IMAGE)["params"]
    got = jax.jit(encoded(Flat()))({**params, "encoder": {"one": jnp.float32(3)}}, {}, BATCH)
    np.testing.assert_allclose(got, 3 * IMAGE.reshape(B, -1)[:, :D], rtol=1e-6)


# Masked autoencoder


def test_patches_are_squares_row_by_row_and_come_back():
    image = np.arange(2 * 4 * 6 * 2, dtype=np.float32).reshape(2, 4, 6, 2)
    cut = masking.patches(jnp.asarray(image), 2)
    assert cut.shape == (2, 6, 8)
    np.testing.assert_array_equal(cut[1, 4].reshape(2, 2, 2), image[1, 2:4, 2:4])
    np.testing.assert_array_equal(masking.images(cut, 2, (4, 6, 2)), image)


class Nothing(nn.Module):
    """Says 0 of every patch, and what it was given."""

    @nn.compact
    def __call__(self, x, keys_B=None, *, kept_Bn):
        zero = self.param("zero", nn.initializers.zeros, ())
        return jnp.zeros((len(x), 16, 4)) + zero


def test_saying_nothing_costs_the_variance_of_a_normalised_patch():
    batch = {"image": RANDOM.random((B, 8, 8, 1)).astype(np.float32), "weight": BATCH["weight"]}
    task = mae(Nothing(), patch=2)
    assert value(jax.jit(task.evaluate)({"zero": np.float32(0)}, {}, batch)["loss"]) == pytest.approx(
        1, rel=1e-3
    )


def small() -> MAE:
    return MAE(ViT(0, 8, 2, 2, 2, size=8, pool="mean"), Block(heads=2, hidden_width=8), 4, width=8, depth=1)


def test_hidden_patches_change_nothing_that_the_model_says_of_others_or_of_themselves():
    model = small()
    x = RANDOM.random((1, 8, 8, 1)).astype(np.float32)
    kept = np.array([[0, 3, 5, 9]])
    variables = jax.jit(lambda: model.init(jax.random.key(0), x, kept_Bn=kept))()
    apply = jax.jit(lambda x: model.apply(variables, x, kept_Bn=kept))
    changed = x.copy()
    changed[:, 6:, 6:] = 5  # patch 15
    np.testing.assert_array_equal(apply(x), apply(changed))
    changed[:, :2, :2] = 5  # patch 0
    assert not np.allclose(apply(x), apply(changed))


def test_each_example_hides_patches_of_its_own_and_as_many_as_asked():
    order, kept = masking.choose(jax.random.split(jax.random.key(0), 200), 16, 0.25)
    assert kept.shape == (200, 4)
    assert all(sorted(row) == list(range(16)) for row in np.asarray(order).tolist())
    count = np.bincount(np.asarray(kept).reshape(-1), minlength=16)
    assert ((count - 50) ** 2 / 50).sum() < 15 + 6 * np.sqrt(30)


def test_a_restored_image_keeps_what_was_seen():
    model, batch = small(), {"image": RANDOM.random((2, 8, 8, 1)).astype(np.float32)}
    params, extra = jax.jit(mae(model, patch=2).init)(jax.random.key(0), batch)
    got = jax.jit(restore(model, patch=2))(params, extra, batch)
    visible = np.isclose(got["masked"], batch["image"])
    assert 2 * 16 <= visible.sum() < 2 * 20
    np.testing.assert_allclose(
        np.where(visible, got["restored"], 0), np.where(visible, batch["image"], 0), atol=1e-6
    )


# Probes


def clouds(n: int, apart: float):
    label = np.arange(n) % 3
    centers = apart * np.eye(3, 6)
    return RANDOM.normal(size=(n, 6)) + centers[label], label


@pytest.mark.parametrize("probe", [linear_probe, nearest_neighbours])
def test_probes_find_what_is_there_and_nothing_where_nothing_is(probe):
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    assert probe(*clouds(300, 8.0), *clouds(300, 8.0)) > 0.97
    assert 0.2 < probe(*clouds(300, 0.0), *clouds(300, 0.0)) < 0.47


def test_neighbours_vote_by_cosine_and_not_by_length():
    train = np.array([[10.0, 0], [0, 0.1], [9, 1]])
    assert nearest_neighbours(train, np.array([0, 1, 0]), np.array([[0.1, 5.0]]), np.array([1])) == 1.0


def test_only_known_examples_teach():
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    x, label = clouds(200, 8.0)
    known = (np.arange(200) < 120).astype(np.float32)
    wrong = np.where(known > 0, label, (label + 1) % 3)
    right = score(
        [x[:50], x[50:]],
        [{"label": y, "known": k} for y, k in ((label[:50], known[:50]), (label[50:], known[50:]))],
    )
    assert right["probe"] > 0.95 and right["neighbours"] > 0.95
    assert score([x], [{"label": wrong, "known": known}])["probe"] < 0.05
