"""muP: activations change by as much at every width, where without it they change by more; counts by hand.

Dimensions: B batch, T tokens, W width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from instances import first

from jaxmodels import optim
from jaxmodels.models.gpt import GPT
from jaxmodels.models.mlp import MLP
from jaxmodels.models.vit import ViT
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.language import next_token
from jaxmodels.tasks.mup import GPT_RULES, MLP_RULES, UNTIED_GPT_RULES, VIT_RULES, mup, rates

BASE = 64
RANDOM = np.random.default_rng(0)
TOKENS = RANDOM.integers(0, 11, (2, 4, 8)).astype(np.int32)
TEXTS = {"inputs": TOKENS[0], "targets": TOKENS[1], "weight": np.ones((4, 8), np.float32)}
IMAGES = {
    "image": RANDOM.normal(size=(8, 8, 8, 1)).astype(np.float32),
    "label": RANDOM.integers(0, 5, 8).astype(np.int32),
    "weight": np.ones(8, np.float32),
}


def gpt(width, tied=True):
    return GPT(11, 8, width, 2, 4, tied=tied)


CASES = {  # model of a width, task, rules, heads, batch, key of the input
    "mlp": (lambda width: MLP((width,) * 3, 5), classify, MLP_RULES, 0, IMAGES, "image"),
    "vit": (
        lambda width: ViT(5, width, 2, 4, 4, size=8, pool="mean"),
        classify,
        VIT_RULES,
        4,
        IMAGES,
        "image",
    ),
    "gpt": (gpt, next_token, GPT_RULES, 4, TEXTS, "inputs"),
    "untied gpt": (lambda width: gpt(width, False), next_token, UNTIED_GPT_RULES, 4, TEXTS, "inputs"),
}


def change(name, width, in_mup):
    """How far the last hidden activations, before a norm, and the outputs move in four updates of Adam."""
    make, task_of, rules, heads, batch, key = CASES[name]
    model, m = make(width), width / BASE
    task, optimizer = task_of(model), optim.adam(0.01)
    if in_mup:
        task, optimizer = mup(task, rules, m, heads=heads), optim.scaled(optimizer, rates(rules, m))

    def activations(params):
        seen = []

        def look(call, args, kwargs, context):
            if context.module.path in (("norm",), ("head",)) and context.method_name == "__call__":
                seen.append(args[0])
            return call(*args, **kwargs)

        with nn.intercept_methods(look):
            out = model.apply({"params": task.unwrap(params, {})[0]}, batch[key])
        return seen[0], out

    @jax.jit
    def trained():
        params, extra = task.init(jax.random.key(0), batch)
        keys_B = jax.random.split(jax.random.key(1), len(batch[key]))

        def step(carry, _):
            gradient = jax.grad(lambda p: task.loss(p, extra, batch, keys_B)[0].total / 32)(carry[0])
            updates, state = optimizer.update(gradient, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        (after, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=4)
        pairs = zip(activations(params), activations(after), strict=True)
        return [jnp.abs(new - old).mean() for old, new in pairs]

    return np.array(trained())


def check(name, widths):
    base = change(name, BASE, True)
    for width in widths:
        in_mup, plain = (change(name, width, yes) / base for yes in (True, False))
        assert (in_mup > 0.4).all() and (in_mup < 2).all()
        assert plain.max() > (3 if width >= 4 * BASE else 1.5)


# A ViT adds its patches to the rules that a GPT's blocks have.
@pytest.mark.parametrize("name", first(2, ["mlp", "gpt", "vit"]))
def test_activations_change_by_as_much_at_every_width_and_without_it_by_more(name):
    check(name, [8 * BASE if name == "mlp" else 4 * BASE])


@pytest.mark.thorough
@pytest.mark.parametrize("name", CASES)
def test_so_it_is_at_all_widths(name):
    check(name, [2 * BASE, 4 * BASE, 8 * BASE])


def test_starts_and_rates_go_with_the_width_by_table_8():
    make, task_of, _, _, batch, _ = CASES["mlp"]
    plain = task_of(make(128))
    params, _ = plain.init(jax.random.key(0), batch)
    got, _ = mup(plain, MLP_RULES, 4.0).init(jax.random.key(0), batch)
    ratio = jax.tree.map(lambda a, b: float(jnp.linalg.norm(a) / jnp.linalg.norm(b)), got, params)
    kernels = {name: layer["kernel"] for name, layer in ratio.items()}
    assert kernels == pytest.approx({"hidden_0": 1, "hidden_1": 1, "hidden_2": 1, "head": 2})
    factors = optim.scaled(optim.sgd(1.0), rates(MLP_RULES, 4.0))
    ones = jax.tree.map(jnp.ones_like, params)
    moved, _ = factors.update(ones, factors.init(params), params)
    by_layer = {name: -float(layer["kernel"][0, 0]) for name, layer in moved.items()}
    assert by_layer == {"hidden_0": 1, "hidden_1": 0.25, "hidden_2": 0.25, "head": 1}


def test_attentions_scores_are_scaled_by_the_width_of_a_head_and_not_by_its_root():
    task = mup(next_token(gpt(64)), GPT_RULES, 4.0, heads=4)
    shapes, _ = jax.eval_shape(task.init, jax.random.key(0), TEXTS)
    multiplied, _ = task.unwrap(jax.tree.map(lambda x: jnp.ones(x.shape), shapes), {})
    by_part = np.asarray(multiplied["blocks"]["qkv"]["kernel"]).reshape(2, 64, 4, 3, 16)
    np.testing.assert_allclose(by_part[..., 0, :], 0.5, rtol=1e-6)
    np.testing.assert_allclose(by_part[..., 1:, :], 1.0, rtol=1e-6)
    np.testing.assert_allclose(multiplied["norm"]["scale"], 0.25)


def test_at_the_base_nothing_changes():
    make, task_of, rules, heads, batch, _ = CASES["mlp"]
    plain = task_of(make(64))
    one, other = (
        task.init(jax.random.key(0), batch)[0] for task in (plain, mup(plain, rules, 1.0, heads=heads))
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)
    got = mup(plain, rules, 1.0, heads=heads).evaluate(one, {}, batch)
    jax.tree.map(np.testing.assert_array_equal, got, plain.evaluate(one, {}, batch))


def test_an_average_belongs_outside_of_factors():
    with pytest.raises(ValueError, match="with_ema"):
        optim.scaled(optim.with_ema(optim.sgd(0.1)), [("x", 2.0)])
