"""Variational autoencoding, diffusion, and the distance of what is made from what is real.

Dimensions: B batch, H W image, D size of the code, N images, F features.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.models.unet import UNet
from jaxmodels.models.vae import VAE
from jaxmodels.scores.frechet import frechet, score
from jaxmodels.task import value
from jaxmodels.tasks import diffusion as diffusing
from jaxmodels.tasks import vae as coding
from jaxmodels.tasks.diffusion import diffusion, mixture
from jaxmodels.tasks.keys import content_keys
from jaxmodels.tasks.vae import vae

pytestmark = pytest.mark.fast

RANDOM = np.random.default_rng(0)


def images(n: int = 6, H: int = 8, W: int = 8, C: int = 1) -> dict[str, np.ndarray]:
    return {"image": RANDOM.random((n, H, W, C)).astype(np.float32), "weight": np.ones(n, np.float32)}


# Keys by content


@pytest.mark.slow
def test_equal_rows_have_equal_keys_wherever_they_stand_and_others_have_others():
    x = RANDOM.random((50, 4, 3)).astype(np.float32)
    keys = np.asarray(jax.random.key_data(content_keys(x)))
    np.testing.assert_array_equal(jax.random.key_data(content_keys(x[::-1])), keys[::-1])
    assert len({k.tobytes() for k in keys}) == 50
    keys = np.asarray(jax.random.key_data(content_keys(np.arange(1_000, dtype=np.int32))))
    assert len({k.tobytes() for k in keys}) == 1_000


# Variational autoencoder


class Linear(nn.Module):
    """A linear Gaussian model of known likelihood: x = z + noise, z standard normal; its true posterior."""

    mean: float
    log_variance: float
    code: int = 1

    @nn.compact
    def __call__(self, x, keys_B=None):
        one = self.param("one", nn.initializers.ones, ())
        mean = self.mean * x.reshape(len(x), -1) * one
        log_variance = jnp.full_like(mean, self.log_variance)
        z = mean
        if keys_B is not None:
            z = mean + jnp.exp(log_variance / 2) * jax.vmap(lambda k: jax.random.normal(k, (1,)))(keys_B)
        return jax.scipy.special.logit(z.reshape(x.shape)), mean, log_variance


@pytest.mark.slow
def test_the_bound_of_a_perfect_posterior_is_the_likelihood():
    """x = z + d e has variance 1 + d^2; the posterior has mean x / (1 + d^2), variance d^2 / (1 + d^2)."""
    d = 0.05
    model = Linear(1 / (1 + d**2), math.log(d**2 / (1 + d**2)))
    x = np.clip(RANDOM.normal(0.5, 0.1, (4_000, 1, 1, 1)), 0.3, 0.7).astype(
        np.float32
    )  # where the sigmoid inverts the logit
    batch = {"image": x, "weight": np.ones(4_000, np.float32)}
    task = vae(model, likelihood="gaussian", deviation=d)
    loss, _, _ = jax.jit(task.loss)(
        {"one": np.float32(1)}, {}, batch, jax.random.split(jax.random.key(0), 4_000)
    )
    want = (0.5 * x.reshape(-1) ** 2 / (1 + d**2) + 0.5 * math.log(2 * math.pi * (1 + d**2))).mean()
    assert value(loss) == pytest.approx(want, abs=0.02)
    worse = vae(Linear(0.9, math.log(d**2)), likelihood="gaussian", deviation=d)
    assert (
        value(
            jax.jit(worse.loss)(
                {"one": np.float32(1)}, {}, batch, jax.random.split(jax.random.key(0), 4_000)
            )[0]
        )
        > want
    )


@pytest.mark.slow
def test_the_loss_is_reconstruction_and_beta_times_divergence():
    model, batch = VAE((8, 8, 1), code=3, channels=(4, 4), hidden=5), images()
    task = vae(model, beta=3.0)
    params, extra = jax.jit(task.init)(jax.random.key(0), batch)
    got = {name: value(mean) for name, mean in jax.jit(task.evaluate)(params, extra, batch).items()}
    assert got["loss"] == pytest.approx(got["reconstruction"] + 3 * got["divergence"], rel=1e-5)
    _, mean, log_variance = jax.device_get(jax.jit(model.apply)({"params": params}, batch["image"]))
    kl = 0.5 * (np.exp(log_variance) + np.square(mean) - 1 - log_variance).sum(-1).mean()
    assert got["divergence"] == pytest.approx(kl, rel=1e-4)


@pytest.mark.slow
def test_odd_sizes_come_back_and_samples_are_chosen_by_their_numbers():
    model = VAE((7, 5, 2), code=3, channels=(4, 6), hidden=5)
    x = RANDOM.random((2, 7, 5, 2)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    assert jax.jit(model.apply)(variables, x)[0].shape == x.shape
    draw = jax.jit(coding.sample(model))
    made = draw(variables["params"], {}, {"index": np.array([4, 9, 4], np.int32)})
    assert made.shape == (3, 7, 5, 2) and made.min() >= 0 and made.max() <= 1
    np.testing.assert_array_equal(made[0], made[2])
    assert not np.array_equal(made[0], made[1])
    with pytest.raises(ValueError, match=r"VAE: got images of shape \(8, 8, 1\); expected \(7, 5, 2\)"):
        model.apply(variables, np.zeros((1, 8, 8, 1), np.float32))


# Diffusion


def test_noisy_images_have_the_stated_mean_and_variance():
    a, s = mixture(jnp.array([0.0, 0.5, 1.0]), 1)
    np.testing.assert_allclose(a**2 + s**2, 1, rtol=1e-6)
    np.testing.assert_allclose(a, [1, 0.5**0.5, 0], atol=1e-6)


class Perfect(nn.Module):
    """The output of a perfect model where every pixel is normal with this mean and deviation, in -1 to 1."""

    mean: float = 0.2
    deviation: float = 0.1
    classes: int = 0

    @nn.compact
    def __call__(self, x, keys_B=None, *, time_B, label_B=None):
        a, s = mixture(time_B)
        one = self.param("one", nn.initializers.ones, ())
        variance = (a * self.deviation) ** 2 + s**2
        image = self.mean + a * self.deviation**2 / variance * (x - a * self.mean)
        noise = (x - a * image) / jnp.maximum(s, 1e-6)
        return one * (a * noise - s * image)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 1.0], ids=["DDIM", "DDPM"])
def test_sampling_with_a_perfect_model_gives_the_distribution(noise):
    draw = jax.jit(diffusing.sample(Perfect(), (4, 4, 1), steps=100, noise=noise))
    made = draw({"one": np.float32(1)}, {}, {"index": np.arange(500, dtype=np.int32)})
    assert made.mean() == pytest.approx(0.6, abs=0.005)  # from 0 to 1
    assert made.std() == pytest.approx(0.05, abs=0.006)


@pytest.mark.slow
def test_a_perfect_models_loss_is_the_variance_that_cannot_be_known_and_any_other_is_worse():
    x = RANDOM.normal(0.6, 0.05, (4_000, 1, 1, 1)).astype(np.float32)
    batch = {"image": x, "weight": np.ones(4_000, np.float32)}
    keys_B = jax.random.split(jax.random.key(0), 4_000)
    loss = jax.jit(diffusion(Perfect()).loss)
    best = value(loss({"one": np.float32(1)}, {}, batch, keys_B)[0])
    assert all(value(loss({"one": np.float32(x)}, {}, batch, keys_B)[0]) > best for x in (0.9, 1.1))
    time = np.linspace(0, 0.999, 10_001) * math.pi / 2
    a, s = np.cos(time), np.sin(time)
    unknown = 0.01 / ((a * 0.1) ** 2 + s**2)  # the variance of v given x_t
    assert best == pytest.approx(unknown.mean(), rel=0.1)


class Labels(nn.Module):
    """Answers by the label alone; 2 is none."""

    classes: int = 2

    @nn.compact
    def __call__(self, x, keys_B=None, *, time_B, label_B=None):
        of = self.param("of", nn.initializers.zeros, (3,))
        return jnp.broadcast_to(of[label_B].reshape(-1, 1, 1, 1), x.shape)


@pytest.mark.slow
def test_a_part_of_the_labels_is_hidden_while_training_and_none_in_evaluation():
    task = diffusion(Labels(), unlabelled=0.25)
    batch = {**images(2_000, 1, 1), "label": np.zeros(2_000, np.int32)}
    keys_B = jax.random.split(jax.random.key(0), 2_000)
    gradient = jax.jit(jax.grad(lambda p, keys: task.loss(p, {}, batch, keys)[0].total))(
        {"of": np.zeros(3, np.float32)}, keys_B
    )
    assert gradient["of"][0] != 0 != gradient["of"][2] and gradient["of"][1] == 0
    shift = {"of": np.array([0, 0, 100], np.float32)}  # answers so wrong that each hidden label shows
    assert value(jax.jit(task.loss)(shift, {}, batch, keys_B)[0]) == pytest.approx(0.25 * 10_000, rel=0.15)
    assert value(jax.jit(task.evaluate)(shift, {}, batch)["loss"]) < 10


@pytest.mark.slow
def test_guidance_goes_beyond_the_label_by_what_the_label_changes():
    """With v constant, one step from pure noise e gives the image a e - s v, clipped."""
    params = {"of": np.array([0.3, 0, 0.1], np.float32)}
    batch = {"index": np.arange(3, dtype=np.int32), "label": np.zeros(3, np.int32)}

    def made(guidance):
        return np.asarray(
            jax.jit(diffusing.sample(Labels(), (1, 1, 1), steps=1, guidance=guidance))(params, {}, batch)
        )

    difference = made(3.0) - made(1.0)
    np.testing.assert_allclose(difference, -(0.1 + 3 * 0.2 - 0.3) / 2, atol=1e-3)


@pytest.mark.slow
def test_the_u_net_answers_in_the_images_shape_and_learns_from_time_and_label():
    model = UNet(channels=(8, 8), patch=2, classes=3, heads=2, attention=(0, 1))
    x = RANDOM.normal(size=(2, 8, 12, 1)).astype(np.float32)
    options = {"time_B": np.array([0.1, 0.9], np.float32)}
    variables = jax.jit(lambda: model.init(jax.random.key(0), x, **options))()
    variables = jax.tree.map(lambda p: p + 0.1 * RANDOM.normal(size=p.shape).astype(np.float32), variables)
    apply = jax.jit(lambda x, time_B, label_B: model.apply(variables, x, time_B=time_B, label_B=label_B))
    label = np.array([0, 1], np.int32)
    first = apply(x, options["time_B"], label)
    assert first.shape == x.shape
    assert not np.allclose(apply(x, options["time_B"][::-1], label), first, atol=1e-3)
    assert not np.allclose(apply(x, options["time_B"], label + 1), first, atol=1e-3)


@pytest.mark.slow
def test_a_new_u_net_answers_nothing_as_the_papers_do():
    model = UNet(channels=(8,), heads=2)
    x = RANDOM.normal(size=(1, 4, 4, 1)).astype(np.float32)
    got = jax.jit(lambda: model.init_with_output(jax.random.key(0), x, time_B=np.zeros(1, np.float32))[0])()
    np.testing.assert_array_equal(got, 0)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(
        ValueError, match=r"UNet: got images of 6x8; expected multiples of 4, by 2 levels and patches of 2"
    ):
        jax.eval_shape(
            lambda x: UNet(channels=(8, 8), patch=2).init(jax.random.key(0), x, time_B=jnp.zeros(1)),
            jnp.zeros((1, 6, 8, 1)),
        )


# Fréchet distance


def test_the_distance_of_normal_distributions_is_the_closed_form():
    """Independent features: squared difference of means and of deviations, added up."""
    means, deviations = (np.array([[0.0, 1, 2], [1, 1, 0]])), np.array([[1.0, 2, 3], [2, 2, 1]])
    sets = [RANDOM.normal(m, d, (200_000, 3)) for m, d in zip(means, deviations, strict=True)]
    want = ((means[0] - means[1]) ** 2 + (deviations[0] - deviations[1]) ** 2).sum()
    assert frechet(*sets) == pytest.approx(want, rel=0.02)


def test_a_set_has_no_distance_from_itself_and_turning_both_changes_nothing():
    x, y = RANDOM.normal(size=(500, 4)), RANDOM.normal(size=(400, 4)) @ RANDOM.normal(size=(4, 4))
    turn = np.linalg.qr(RANDOM.normal(size=(4, 4)))[0]
    assert frechet(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet(x @ turn, y @ turn) == pytest.approx(frechet(x, y), rel=1e-6)


def test_fewer_images_than_features_still_have_a_distance_and_one_has_none():
    assert np.isfinite(frechet(RANDOM.normal(size=(5, 8)), RANDOM.normal(size=(6, 8))))
    with pytest.raises(ValueError, match="frechet: got 1 images; expected at least 2"):
        frechet(np.zeros((1, 3)), np.zeros((5, 3)))


def test_the_score_joins_all_batches():
    x, y = RANDOM.normal(size=(60, 2, 2, 1)), RANDOM.normal(1, 1, (60, 2, 2, 1))

    def flat(images):
        return images.reshape(len(images), -1)

    got = score(flat)([x[:40], x[40:]], [{"image": y[:40]}, {"image": y[40:]}])
    assert got == {"frechet": pytest.approx(frechet(flat(x), flat(y)))}
