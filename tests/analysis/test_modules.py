"""A model by its modules: every parameter once, every FLOP once, a scan's as often as it runs."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import pytest
from files import bare_jax, tiny_gpt, tiny_mlp

from jaxmodels.analysis import flops
from jaxmodels.analysis.modules import modules
from jaxmodels.state import initial

pytestmark = pytest.mark.fast


@pytest.mark.slow
@pytest.mark.parametrize("file", [tiny_mlp, tiny_gpt, bare_jax], ids=lambda file: file.__name__)
def test_parameters_and_flops_are_those_of_the_whole(file):
    experiment = file.build(file.Config())
    found = modules(experiment)
    state = jax.eval_shape(lambda: initial(experiment))
    assert sum(m.size for m in found) == sum(math.prod(x.shape) for x in jax.tree.leaves(state.params))
    batch = {k: jnp.zeros((1, *shape), dtype) for k, (shape, dtype) in experiment.train.spec.items()}
    whole = flops.count(jax.make_jaxpr(experiment.task.evaluate)(state.params, state.extra, batch))
    assert sum(m.flops for m in found) == whole.total


def test_a_perceptron_is_its_two_layers_by_hand():
    hidden, head = modules(tiny_mlp.build(tiny_mlp.Config()))
    assert (hidden.output, hidden.size, hidden.flops) == ((10,), 110, 200)
    assert (head.parameters, head.flops) == ({"bias": (1,), "kernel": (10, 1)}, 20)


def test_the_products_of_a_stack_of_blocks_stand_beside_their_parameters():
    found = {m.path: m for m in modules(tiny_gpt.build(tiny_gpt.Config()))}
    stacked = found["blocks/up"]
    layers, width, wide = stacked.parameters["kernel"]
    length = stacked.output[0]
    assert stacked.flops == 2 * layers * length * width * wide
