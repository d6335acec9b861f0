"""The loss over a large vocabulary, of which each device computes its tokens a few at a time."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmodels.parallel.compile import traced_for
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.parallel.placement import batch_sharding, replicated
from jaxmodels.tasks.cross_entropy import cross_entropy

B, T, M, V = 8, 12, 16, 32
CHUNK = 2 * V  # logits at once


def inputs():
    random = np.random.default_rng(0)
    weight = (random.uniform(size=(B, T)) > 0.3).astype(np.float32)
    numbers = random.normal(size=(B, T, M)), random.normal(size=(V, M))
    return *(x.astype(np.float32) for x in numbers), random.integers(0, V, (B, T)), weight


def loss(x, table, targets, weight):
    found = cross_entropy(x, table, targets, weight, smoothing=0.1, chunk=CHUNK)
    return found[0].total / found[0].weight, found


@pytest.mark.parametrize(
    "axes", ["data=2,fsdp=2,tensor=2", "fsdp=4,context=2", "fsdp=2,context=2,pipeline=2"]
)
def test_on_a_mesh_loss_accuracy_and_gradients_are_those_of_one_device_and_the_matrix_is_gathered_once(axes):
    mesh = make_mesh(axes)

    def at(*spec):
        return NamedSharding(mesh, P(*spec))

    table = at("tensor" if "tensor" in mesh.shape else None, "fsdp")
    gradient = jax.grad(loss, (0, 1), has_aux=True)
    rows = batch_sharding(mesh)
    split = jax.jit(
        traced_for(mesh, gradient),
        in_shardings=(rows, table, rows, rows),
        out_shardings=((rows, table), at()),
    )
    got, want = split(*inputs()), jax.jit(gradient)(*inputs())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)
    text = split.lower(*inputs()).compile().as_text()
    parts = {part.lstrip("%").split(" ")[0]: part for part in re.split(r"\n\n", text)}
    bodies = [parts[name] for name in set(re.findall(r"body=%?([\w.\-]+)", text))]
    assert bodies
    exchanged = [
        line for body in bodies for line in body.splitlines() if re.search(r" all-(gather|reduce)", line)
    ]
    assert not [line for line in exchanged if re.search(rf"\[({V}|{V // 2}),{M}\]", line)]


def test_stages_of_a_pipeline_share_the_tokens():
    mesh = make_mesh("data=2,pipeline=4")
    mine = batch_sharding(mesh)
    split = jax.jit(traced_for(mesh, loss), in_shardings=(mine, replicated(mesh), mine, mine))
    text = split.lower(*inputs()).compile().as_text()
    [rows] = {int(n) for n in re.findall(rf"f32\[(\d+),{V}\]\S* (?:dot|custom-call)\(", text)}
    [trips] = {int(n) for n in re.findall(r"known_trip_count.{4,8}?(\d+)", text)}
    assert rows * trips == B * T // mesh.size


def test_products_of_the_gradient_are_of_the_models_type():
    x, table, targets, weight = inputs()
    gradient = jax.make_jaxpr(jax.grad(loss, (0, 1), has_aux=True))
    text = str(gradient(jnp.asarray(x, jnp.bfloat16), jnp.asarray(table, jnp.bfloat16), targets, weight))
    assert text.count("dot_general[") == 3
    for operands in re.findall(r"dot_general\[.*?\] (\w+) (\w+)\n", text, re.S):
        assert all(f"{name}:bf16" in text for name in operands)


def test_the_sums_are_in_float32_though_the_model_is_in_bfloat16():
    x, table, targets, weight = inputs()
    total, _ = jax.jit(loss)(jnp.asarray(x, jnp.bfloat16), jnp.asarray(table, jnp.bfloat16), targets, weight)
    assert total.dtype == jnp.float32
