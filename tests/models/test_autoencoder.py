"""Autoencoders and their four losses, by hand. Dimensions: B batch, F inputs, D width of the code."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.models.autoencoder import Autoencoder
from jaxmodels.tasks.autoencode import autoencode, coded, reconstruction
from jaxmodels.tasks.contractive import contractive
from jaxmodels.tasks.denoising import denoising
from jaxmodels.tasks.sparse import sparse

B, F, D = 5, 6, 2
MODEL = Autoencoder(F, (4,), D, code_activation=nn.sigmoid)
random = np.random.default_rng(0)
BATCH = {"image": random.random((B, 3, 2, 1)).astype(np.float32), "weight": np.ones(B, np.float32)}
KEYS = jax.random.split(jax.random.key(1), B)


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), BATCH["image"])["params"]
    return jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), shapes)


def value(mean):
    return float(mean.total / mean.weight)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(p, x_BF):
    """(logits, code, Jacobians BDF) in float64, layer by layer."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), p)

    def dense(name, x):
        return x @ p[name]["kernel"] + p[name]["bias"]

    h = sigmoid(dense("down_0", x_BF))
    code = sigmoid(dense("down_1", h))
    logits = dense("up_1", sigmoid(dense("up_0", code)))
    inner = np.einsum("FH,BH,HD->BDF", p["down_0"]["kernel"], h * (1 - h), p["down_1"]["kernel"])
    return logits, code, (code * (1 - code))[..., None] * inner


def test_the_losses_are_their_formulas(params):
    x_BF = BATCH["image"].reshape(B, F).astype(np.float64)
    logits, code, jacobian_BDF = by_hand(params, x_BF)
    made = sigmoid(logits)
    cross = -(x_BF * np.log(made) + (1 - x_BF) * np.log(1 - made)).sum(1).mean()
    squared = ((made - x_BF) ** 2).sum(1).mean()
    plain = autoencode(MODEL).evaluate(params, {}, BATCH)
    assert value(plain["loss"]) == pytest.approx(cross, rel=1e-5)
    assert value(plain["squared_error"]) == pytest.approx(squared, rel=1e-5)
    linear = autoencode(MODEL, miss="squared").evaluate(params, {}, BATCH)
    assert value(linear["loss"]) == pytest.approx(((logits - x_BF) ** 2).sum(1).mean(), rel=1e-5)

    kl = 0.1 * np.log(0.1 / code) + 0.9 * np.log(0.9 / (1 - code))
    found = sparse(MODEL, rate=0.1, penalty=2.0).evaluate(params, {}, BATCH)
    assert value(found["loss"]) == pytest.approx(cross + 2 * kl.sum(1).mean(), rel=1e-5)
    assert value(found["activity"]) == pytest.approx(code.mean(), rel=1e-5)

    norm = (jacobian_BDF**2).sum((1, 2)).mean()
    found = contractive(MODEL, penalty=3.0).evaluate(params, {}, BATCH)
    assert value(found["contraction"]) == pytest.approx(norm, rel=1e-4)
    assert value(found["loss"]) == pytest.approx(cross + 3 * norm, rel=1e-4)
    both = coded(MODEL)(params, {}, BATCH)
    np.testing.assert_allclose(both["code"], code, rtol=1e-4)
    np.testing.assert_allclose(both["made"], logits, rtol=1e-4, atol=1e-4)


def test_a_damaged_input_is_compared_with_the_whole_one(params):
    """A masking of nearly all values is an input of zeros; evaluation sees the input as it is."""
    task = denoising(MODEL, masked=1 - 1e-9)
    _, _, metrics = jax.jit(task.loss)(params, {}, BATCH, KEYS)
    logits, _, _ = by_hand(params, np.zeros((B, F)))
    x_BF, made = BATCH["image"].reshape(B, F), sigmoid(logits)
    cross = -(x_BF * np.log(made) + (1 - x_BF) * np.log(1 - made)).sum(1).mean()
    assert value(metrics["loss"]) == pytest.approx(cross, rel=1e-5)
    plain = autoencode(MODEL)
    np.testing.assert_array_equal(
        task.evaluate(params, {}, BATCH)["loss"], plain.evaluate(params, {}, BATCH)["loss"]
    )
    losses = [value(denoising(MODEL, **d).loss(params, {}, BATCH, KEYS)[0]) for d in ({"noise": 1.0}, {})]
    assert len({*losses, value(plain.loss(params, {}, BATCH, KEYS)[0])}) == 3


def test_a_linear_autoencoder_learns_the_principal_components():
    """Baldi and Hornik (1989): its least squared error is that of PCA."""
    x_NF = random.normal(size=(200, 2)) @ random.normal(size=(2, F)) + 0.1 * random.normal(size=(200, F))
    x_NF = ((x_NF - x_NF.mean(0)) / x_NF.std()).astype(np.float32)
    model = Autoencoder(F, (), D)
    task = autoencode(model, inputs="x", miss="squared")
    batch = {"x": x_NF, "weight": np.ones(200, np.float32)}
    params, _ = task.init(jax.random.key(0), batch)
    start = params

    def total(p):
        mean = task.loss(p, {}, batch, None)[0]
        return mean.total / mean.weight

    def step(_, p):
        return jax.tree.map(lambda x, g: x - 0.02 * g, p, jax.grad(total)(p))

    params = jax.jit(lambda p: jax.lax.fori_loop(0, 3000, step, p))(params)
    best = (np.linalg.svd(x_NF, compute_uv=False)[D:] ** 2).sum() / 200
    assert best <= float(total(params)) + 1e-6 < 1.02 * best + 1e-3 < float(total(start))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: denoising(MODEL, masked=1.0), "got masked=1.0"),
        (lambda: denoising(MODEL, masked=0.0), "one of them above 0"),
        (lambda: sparse(MODEL, rate=0.0), "got rate=0.0"),
        (lambda: contractive(MODEL, penalty=-1), "got penalty=-1"),
        (
            lambda: reconstruction(jnp.zeros((1, 2)), jnp.zeros((1, 2)), "mse"),
            "expected one of 'cross_entropy'",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_words(make, message):
    with pytest.raises(ValueError, match=message):
        make()
