"""Optimizers against the formulas of their papers in NumPy.

The gradients of one matrix and one vector are given, so rounding cannot grow from step to step.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import CNN_SIZES, GPT_SIZES, images, tokens

from jaxmodels import optim
from jaxmodels.models.cnn import CNN
from jaxmodels.models.gpt import GPT
from jaxmodels.paths import by_path, nested
from jaxmodels.step import eval_variables, init, make_step
from jaxmodels.task import Mean, Task, value

fast = pytest.mark.fast

STEPS = 4
RANDOM = np.random.default_rng(0)
PARAMS = {
    "kernel": RANDOM.normal(size=(6, 4)).astype(np.float32),
    "bias": RANDOM.normal(size=4).astype(np.float32),
}
GRADS = {name: RANDOM.normal(size=(STEPS, *p.shape)).astype(np.float32) for name, p in PARAMS.items()}


def run(optimizer, params=PARAMS, grads=GRADS):
    """(parameters, optimizer state) after one update for each of the given gradients."""

    def one(carry, g):
        params, state = carry
        updates, state = optimizer.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(one, (params, optimizer.init(params)), grads)[0]


# The papers


def numpy_sgd(p, grads, *, rate, momentum=0.0, nesterov=False, decay=0.0):
    v = 0.0
    for g in grads:
        g = g + decay * p
        v = momentum * v + g
        p = p - rate * (g + momentum * v if nesterov else v)
    return p


def numpy_adam(p, grads, *, rate, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
    m = v = 0.0
    for t, g in enumerate(grads, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        p = p - rate * (m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * p)
    return p


def numpy_rmsprop(p, grads, *, rate, rho=0.9, eps=1e-8, momentum=0.0):
    v = m = 0.0
    for g in grads:
        v = rho * v + (1 - rho) * g**2
        m = momentum * m + g / np.sqrt(v + eps)
        p = p - rate * m
    return p


def numpy_adagrad(p, grads, *, rate, initial=0.1, eps=1e-7):
    s = initial
    for g in grads:
        s = s + g**2
        p = p - rate * g / np.sqrt(s + eps)
    return p


def numpy_lion(p, grads, *, rate, b1=0.9, b2=0.99, decay=0.0):
    m = np.zeros_like(p)
    for g in grads:
        p = p - rate * (np.sign(b1 * m + (1 - b1) * g) + decay * p)
        m = b2 * m + (1 - b2) * g
    return p


def numpy_adafactor(p, grads, *, rate, factored):
    """Algorithms 4 and 6 of arXiv:1804.04235."""
    rows = columns = v = 0.0
    for t, g in enumerate(grads, 1):
        beta = 1 - t**-0.8
        if factored:
            rows = beta * rows + (1 - beta) * (g**2 + 1e-30).sum(1)
            columns = beta * columns + (1 - beta) * (g**2 + 1e-30).sum(0)
            v = np.outer(rows, columns) / rows.sum()
        else:
            v = beta * v + (1 - beta) * (g**2 + 1e-30)
        u = g / np.sqrt(v)
        u = u / max(1.0, np.sqrt((u**2).mean()))
        p = p - rate * max(1e-3, np.sqrt((p**2).mean())) * u
    return p


def numpy_schedule_free(p, grads, *, rate, warmup, b1, b2=None, eps=1e-8, decay=0.0):
    """(x, y) of algorithm 1 of arXiv:2405.15682; SGD where b2 is None."""
    x = z = y = p
    v = total = 0.0
    for t, g in enumerate(grads, 1):
        y = (1 - b1) * z + b1 * x
        rate_t = rate * min(1.0, t / max(1, warmup))
        if b2 is not None:
            rate_t *= np.sqrt(1 - b2**t)
            v = b2 * v + (1 - b2) * g**2
            g = g / (np.sqrt(v) + eps)
        z = z - rate_t * g - rate_t * decay * y
        total += rate_t**2
        x = (1 - rate_t**2 / total) * x + rate_t**2 / total * z
    return x, (1 - b1) * z + b1 * x


# float32 knows 1 - 0.999**t to 3e-5 only, so Adam's updates of 0.1 are right to a few millionths.
near = partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-5)


def agree(optimizer, reference, *, decay=None):
    """The optimizer and the formula on matrix and vector, only the matrix decayed."""
    got, _ = jax.jit(partial(run, optimizer))()
    for name, p in PARAMS.items():
        options = {} if decay is None else {"decay": decay if name == "kernel" else 0.0}
        want = reference(p.astype(np.float64), GRADS[name].astype(np.float64), **options)
        near(got[name], want, err_msg=name)


@fast
def test_sgd_follows_the_gradient():
    agree(optim.sgd(0.1), partial(numpy_sgd, rate=0.1))


@fast
def test_sgd_with_momentum_follows_polyak():
    agree(optim.sgd(0.1, momentum=0.9), partial(numpy_sgd, rate=0.1, momentum=0.9))


@fast
def test_sgd_with_nesterov_momentum_and_decay_adds_the_decay_to_the_gradient():
    agree(
        optim.sgd(0.1, momentum=0.9, nesterov=True, weight_decay=0.2),
        partial(numpy_sgd, rate=0.1, momentum=0.9, nesterov=True),
        decay=0.2,
    )


@fast
def test_adam_follows_the_paper():
    agree(
        optim.adam(0.1, b1=0.8, b2=0.95, eps=1e-3), partial(numpy_adam, rate=0.1, b1=0.8, b2=0.95, eps=1e-3)
    )


@fast
def test_adamw_decays_apart_from_the_moments():
    agree(optim.adamw(0.1, weight_decay=0.2), partial(numpy_adam, rate=0.1), decay=0.2)


@fast
def test_rmsprop_follows_the_lecture():
    agree(
        optim.rmsprop(0.1, decay=0.8, momentum=0.9), partial(numpy_rmsprop, rate=0.1, rho=0.8, momentum=0.9)
    )


@fast
def test_adagrad_follows_the_paper():
    agree(optim.adagrad(0.1, initial=0.3), partial(numpy_adagrad, rate=0.1, initial=0.3))


@fast
def test_lion_follows_the_paper():
    agree(optim.lion(0.01, b1=0.8, weight_decay=0.3), partial(numpy_lion, rate=0.01, b1=0.8), decay=0.3)


@fast
def test_adafactor_of_small_matrices_follows_the_paper():
    agree(optim.adafactor(0.1), partial(numpy_adafactor, rate=0.1, factored=False))


@fast
def test_adafactor_of_large_matrices_keeps_rows_and_columns_only():
    optimizer = optim.adafactor(0.1, min_size=4)
    got, state = jax.jit(partial(run, optimizer))()
    want = numpy_adafactor(
        PARAMS["kernel"].astype(np.float64), GRADS["kernel"].astype(np.float64), rate=0.1, factored=True
    )
    near(got["kernel"], want)
    shapes = {x.shape for name, x in by_path(state).items() if "kernel" in name}
    assert shapes == {(6,), (4,), (1,)}


def schedule_free_agrees(optimizer, reference, decay):
    got, state = jax.jit(partial(run, optimizer))()
    averages = optimizer.average(state, got)
    for name, p in PARAMS.items():
        x, y = reference(
            p.astype(np.float64), GRADS[name].astype(np.float64), decay=decay if name == "kernel" else 0.0
        )
        near(got[name], y, err_msg=name)
        near(averages[name], x, err_msg=name)


@pytest.mark.slow
@fast
def test_schedule_free_sgd_follows_the_paper():
    schedule_free_agrees(
        optim.schedule_free_sgd(0.1, warmup=3, b1=0.8, weight_decay=0.2),
        partial(numpy_schedule_free, rate=0.1, warmup=3, b1=0.8),
        decay=0.2,
    )


@pytest.mark.slow
@fast
def test_schedule_free_adamw_follows_the_paper():
    schedule_free_agrees(
        optim.schedule_free_adamw(0.1, warmup=3, b1=0.8, b2=0.95, weight_decay=0.2),
        partial(numpy_schedule_free, rate=0.1, warmup=3, b1=0.8, b2=0.95),
        decay=0.2,
    )


# Muon


def muon_update(params, grads, **options):
    """One update at rate 1, as positive directions."""
    optimizer = optim.muon(1.0, **options)
    updates, _ = jax.jit(lambda p, g: optimizer.update(g, optimizer.init(p), p))(params, grads)
    return jax.tree.map(lambda u: -np.asarray(u), updates)


def near_orthogonal(update, gradient, gain=1.0):
    """The gradient's singular vectors, singular values near 1 (five steps leave 0.7 to 1.2)."""
    U, _, Vt = np.linalg.svd(gradient, full_matrices=False)
    inner = U.T @ update @ Vt.T / gain
    values = np.diag(inner)
    assert values.min() > 0.6 and values.max() < 1.3
    np.testing.assert_allclose(inner, np.diag(values), atol=1e-3)


@pytest.mark.slow
@fast
def test_muon_orthogonalises_matrices_stacks_and_kernels_of_convolutions():
    random = np.random.default_rng(1)
    shapes = {"tall": (12, 5), "wide": (5, 20), "stack": (3, 6, 6), "convolution": (3, 3, 2, 4)}
    grads = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    update = muon_update(jax.tree.map(np.ones_like, grads), grads)
    near_orthogonal(update["tall"], grads["tall"])
    near_orthogonal(update["wide"], grads["wide"], gain=2.0)  # sqrt(20 / 5)
    for layer in range(3):
        near_orthogonal(update["stack"][layer], grads["stack"][layer])
    near_orthogonal(update["convolution"].reshape(18, 4), grads["convolution"].reshape(18, 4))


@fast
def test_muon_leaves_vectors_embeddings_and_heads_to_adam():
    """GPT's layers are stacked, so its biases and scales are matrices too; their paths tell them apart."""
    random = np.random.default_rng(2)
    shapes = {
        "bias": (4,),
        "blocks": {"norm_mlp": {"scale": (2, 4)}},
        "embed": {"embedding": (6, 4)},
        "head": (4, 6),
    }

    def is_shape(x):
        return isinstance(x, tuple)

    params = jax.tree.map(
        lambda shape: random.normal(size=shape).astype(np.float32), shapes, is_leaf=is_shape
    )
    grads = jax.tree.map(
        lambda shape: random.normal(size=(STEPS, *shape)).astype(np.float32), shapes, is_leaf=is_shape
    )
    got, _ = jax.jit(lambda p, g: run(optim.muon(0.5, adam_rate=0.1), p, g))(params, grads)
    want = jax.tree.map(partial(numpy_adam, rate=0.1), params, grads)
    jax.tree.map(near, got, want)


# What all have in common

FLOATS = {
    "sgd": (optim.sgd, {"momentum": 0.9}),
    "adam": (optim.adam, {"b1": 0.8, "b2": 0.9, "eps": 1e-3}),
    "adamw": (optim.adamw, {"b1": 0.8}),
    "rmsprop": (optim.rmsprop, {"decay": 0.8, "eps": 1e-3, "momentum": 0.9}),
    "adagrad": (optim.adagrad, {"initial": 0.2, "eps": 1e-3}),
    "lion": (optim.lion, {"b1": 0.8, "b2": 0.9}),
    "adafactor": (optim.adafactor, {"decay_rate": 0.7, "momentum": 0.9}),
    "muon": (optim.muon, {"beta": 0.9, "adam_rate": 0.02}),
    "normuon": (optim.normuon, {"beta": 0.9, "b2": 0.8, "eps": 1e-3}),
    "soap": (partial(optim.soap, largest=4, every=2), {"b1": 0.8, "b2": 0.9, "eps": 1e-3}),
    "shampoo": (partial(optim.shampoo, every=2), {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "ridge": 1e-2}),
    "cautious_adam": (optim.cautious_adam, {"b1": 0.8, "b2": 0.9, "eps": 1e-3}),
    "cautious_lion": (optim.cautious_lion, {"b1": 0.8, "b2": 0.9}),
    "schedule_free_sgd": (partial(optim.schedule_free_sgd, warmup=3), {"b1": 0.8}),
    "schedule_free_adamw": (
        partial(optim.schedule_free_adamw, warmup=3),
        {"b1": 0.8, "b2": 0.9, "eps": 1e-3},
    ),
    "ema": (
        lambda rate, decay, **options: optim.with_ema(optim.adam(rate, **options), decay),
        {"decay": 0.4},
    ),
}
each = pytest.mark.parametrize("name", FLOATS)


@each
def test_every_float_may_be_a_traced_value(name):
    """That is what makes a sweep over any of them one program."""
    make, floats = FLOATS[name]
    floats = {**floats, "rate": 0.1, "weight_decay": 0.2, "clip": 0.5}
    traced = jax.jit(lambda knobs: run(make(**knobs)))(floats)
    constant = jax.jit(lambda: run(make(**floats)))()
    jax.tree.map(near, traced[0], constant[0])


@pytest.mark.slow
@fast
def test_a_sweep_over_rates_is_a_vmap():
    rates = jnp.array([0.01, 0.1, 1.0])
    swept, _ = jax.jit(jax.vmap(lambda rate: run(optim.adam(optim.warmup_cosine(rate, warmup=2, steps=8)))))(
        rates
    )
    alone, _ = run(optim.adam(optim.warmup_cosine(0.1, warmup=2, steps=8)))
    np.testing.assert_allclose(swept["kernel"][1], alone["kernel"], rtol=1e-5, atol=1e-6)


@fast
@each
def test_without_gradients_decay_alone_shrinks_matrices_by_the_rate(name):
    make, floats = FLOATS[name]
    optimizer = make(rate=0.1, weight_decay=0.2, **floats)
    params, state = jax.jit(partial(run, optimizer))(
        PARAMS, jax.tree.map(lambda g: np.zeros_like(g[:1]), GRADS)
    )
    rate = jax.tree.leaves(optax.tree.get_all_with_path(state, "learning_rate")[0][1])[0]
    np.testing.assert_allclose(params["kernel"], PARAMS["kernel"] * (1 - 0.2 * rate), rtol=1e-5)
    np.testing.assert_allclose(params["bias"], PARAMS["bias"], rtol=1e-6)
    assert rate > 0


@fast
def test_clip_bounds_the_norm_of_the_gradient_and_keeps_its_direction():
    grads = jax.tree.map(lambda g: g[:1], GRADS)
    norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
    got, _ = run(optim.sgd(1.0, clip=0.5), grads=grads)
    for name, p in PARAMS.items():
        np.testing.assert_allclose(p - got[name], grads[name][0] * 0.5 / norm, rtol=1e-4, atol=1e-6)


@fast
def test_clip_leaves_small_gradients_alone():
    clipped, _ = run(optim.sgd(0.1, clip=1e3))
    free, _ = run(optim.sgd(0.1))
    jax.tree.map(np.testing.assert_array_equal, clipped, free)


@fast
def test_decay_leaves_out_biases_and_scales_also_where_a_scan_stacks_them():
    shapes = jax.eval_shape(GPT(**GPT_SIZES, tied=False).init, jax.random.key(0), tokens()["inputs"])[
        "params"
    ]
    decayed = {name for name, yes in by_path(optim.matrices(shapes)).items() if yes}
    blocks = {f"blocks/{name}/kernel" for name in ("qkv", "out", "up", "down")}
    assert decayed == {*blocks, "embed/embedding", "position", "head"}


NAMED = {  # a parameter's path, and whether it is decayed where it is a matrix
    "unbiased/kernel": True,
    "normal_dense/kernel": True,
    "upscale/kernel": True,
    "multi_head_attention/kernel": True,
    "composition/kernel": True,
    "scale_network/kernel": True,
    "bias": False,
    "blocks/bias_state": False,
    "decoder_bias": False,
    "scale_0": False,
    "blocks/norm_attention/scale": False,
    "LayerNorm_0/scale": False,
    "RMSNorm_0/weight": False,
    "norm1/weight": False,
    "attention_norm/weight": False,
}


@pytest.mark.parametrize("name", NAMED)
def test_decay_and_muon_tell_parameters_by_whole_words_of_their_paths(name):
    params = nested({name: jnp.ones((2, 3))})
    assert jax.tree.leaves(optim.matrices(params)) == [NAMED[name]]
    updates, _ = (made := optim.muon(1.0)).update(params, made.init(params), params)
    by_adam = bool(
        jnp.allclose(jnp.abs(jax.tree.leaves(updates)[0]), 1.0, atol=1e-5)
    )  # a first update is the sign
    assert by_adam != NAMED[name]


@fast
@pytest.mark.parametrize(
    ("name", "adam"),
    [
        *[
            (name, True)
            for name in ("embed/embedding", "pos_embed", "lm_head/kernel", "head", "class_head_0/kernel")
        ],
        *[(name, False) for name in ("composition/kernel", "headroom/kernel", "embedder_free/kernel")],
        ("position_row", True),
    ],
)
def test_muon_leaves_to_adam_what_is_called_so_and_not_what_sounds_like_it(name, adam):
    params = nested({name: jnp.ones((2, 3))})
    updates, _ = (made := optim.muon(1.0)).update(params, made.init(params), params)
    assert bool(jnp.allclose(jnp.abs(jax.tree.leaves(updates)[0]), 1.0, atol=1e-5)) == adam


@fast
def test_decay_takes_kernels_of_convolutions_and_no_batch_normalisation():
    shapes = jax.eval_shape(CNN(**CNN_SIZES, batch_norm=True).init, jax.random.key(0), images()["image"])[
        "params"
    ]
    decayed = {name for name, yes in by_path(optim.matrices(shapes)).items() if yes}
    assert decayed == {"conv_0/kernel", "conv_1/kernel", "dense/kernel", "head/kernel"}


@fast
def test_everything_decays_everything():
    params, _ = run(
        optim.sgd(0.1, weight_decay=0.5, mask=optim.everything), grads=jax.tree.map(np.zeros_like, GRADS)
    )
    jax.tree.map(lambda got, p: np.testing.assert_allclose(got, p * 0.95**STEPS, rtol=1e-5), params, PARAMS)


def quadratic() -> Task:
    """The square of PARAMS."""

    def loss(params, extra, batch, keys_B):
        square = sum(jnp.sum(p**2) for p in params.values())
        return Mean.of(square * batch["weight"], batch["weight"]), extra, {}

    return Task(
        lambda key, batch: (jax.tree.map(jnp.asarray, PARAMS), {}), loss, lambda params, extra, batch: {}
    )


@each
def test_the_log_finds_the_rate_of_each_step(name):
    make, floats = FLOATS[name]
    rate = 0.4 if "schedule_free" in name else optim.warmup_linear(0.4, warmup=4, steps=8)
    want = [0.4 / 3, 0.8 / 3, 0.4] if "schedule_free" in name else [0.1, 0.2, 0.3]
    if name == "schedule_free_adamw":
        want = [w * np.sqrt(1 - 0.9**t) for t, w in enumerate(want, 1)]
    task, optimizer, batch = quadratic(), make(rate=rate, **floats), {"weight": np.ones(2, np.float32)}
    state, step = init(task, optimizer, 0, batch), jax.jit(make_step(task, optimizer))
    got = []
    for _ in want:
        state, metrics = step(state, batch)
        got.append(value(metrics["learning_rate"]))
    np.testing.assert_allclose(got, want, rtol=1e-4)


# Averages


@fast
@pytest.mark.parametrize("warmup", [True, False])
def test_the_moving_average_follows_its_formula(warmup):
    optimizer = optim.with_ema(optim.sgd(0.1), 0.35, warmup=warmup)
    params, state = run(optimizer)
    average = p = PARAMS["kernel"].astype(np.float64)
    for n, g in enumerate(GRADS["kernel"]):
        p = p - 0.1 * g
        decay = min(0.35, (1 + n) / (10 + n)) if warmup else 0.35
        average = decay * average + (1 - decay) * p
    np.testing.assert_allclose(params["kernel"], p, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(optimizer.average(state, params)["kernel"], average, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@fast
def test_evaluation_takes_the_average_where_there_is_one():
    task, batch = quadratic(), {"weight": np.ones(2, np.float32)}
    averaging, plain = optim.with_ema(optim.sgd(0.1), 0.9), optim.sgd(0.1)
    state, _ = jax.jit(make_step(task, averaging))(init(task, averaging, 0, batch), batch)
    jax.tree.map(np.testing.assert_array_equal, eval_variables(averaging, state)[0], state.opt_state.ema)
    assert not np.array_equal(state.opt_state.ema["kernel"], state.params["kernel"])
    state, _ = jax.jit(make_step(task, plain))(init(task, plain, 0, batch), batch)
    jax.tree.map(np.testing.assert_array_equal, eval_variables(plain, state)[0], state.params)
