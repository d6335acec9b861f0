"""Masked autoencoding. Dimensions: B batch, H W image, N patches."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.models.mae import MAE
from jaxmodels.models.vit import Block, ViT
from jaxmodels.task import value
from jaxmodels.tasks import mae as masking
from jaxmodels.tasks.mae import mae, restore

pytestmark = pytest.mark.fast

B = 5
RANDOM = np.random.default_rng(0)


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


@pytest.mark.slow
def test_saying_nothing_costs_the_variance_of_a_normalised_patch():
    batch = {
        "image": RANDOM.random((B, 8, 8, 1)).astype(np.float32),
        "weight": np.array([1, 1, 1, 1, 0], np.float32),
    }
    task = mae(Nothing(), patch=2)
    assert value(jax.jit(task.evaluate)({"zero": np.float32(0)}, {}, batch)["loss"]) == pytest.approx(
        1, rel=1e-3
    )


def small() -> MAE:
    return MAE(ViT(0, 8, 2, 2, 2, size=8, pool="mean"), Block(heads=2, hidden_width=8), 4, width=8, depth=1)


@pytest.mark.slow
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


@pytest.mark.slow
def test_each_example_hides_patches_of_its_own_and_as_many_as_asked():
    order, kept = masking.choose(jax.random.split(jax.random.key(0), 200), 16, 0.25)
    assert kept.shape == (200, 4)
    assert all(sorted(row) == list(range(16)) for row in np.asarray(order).tolist())
    count = np.bincount(np.asarray(kept).reshape(-1), minlength=16)
    assert ((count - 50) ** 2 / 50).sum() < 15 + 6 * np.sqrt(30)


@pytest.mark.slow
def test_a_restored_image_keeps_what_was_seen():
    model, batch = small(), {"image": RANDOM.random((2, 8, 8, 1)).astype(np.float32)}
    params, extra = jax.jit(mae(model, patch=2).init)(jax.random.key(0), batch)
    got = jax.jit(restore(model, patch=2))(params, extra, batch)
    visible = np.isclose(got["masked"], batch["image"])
    assert 2 * 16 <= visible.sum() < 2 * 20
    np.testing.assert_allclose(
        np.where(visible, got["restored"], 0), np.where(visible, batch["image"], 0), atol=1e-6
    )
