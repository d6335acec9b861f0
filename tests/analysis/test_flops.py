from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from instances import first
from tiny import TINY

from jaxmodels import keys
from jaxmodels.analysis import flops, hlo
from jaxmodels.layers.attention import lowered_for
from jaxmodels.models.bert import Bert, TextClassifier
from jaxmodels.models.cnn import CNN
from jaxmodels.models.gpt import GPT, gpt3_175b
from jaxmodels.models.llama import Llama
from jaxmodels.models.mixer import Mixer
from jaxmodels.models.mlp import MLP
from jaxmodels.models.resnet import ResNet
from jaxmodels.models.vit import ViT
from jaxmodels.step import init, make_step

SGD = optax.sgd(0.1)
GROUPED = {"moe-shared-remat"}  # a CPU computes every expert for every token
IMAGE = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32)
TOKENS = jax.ShapeDtypeStruct((4, 64), jnp.int32)

FAMILIES = {
    "mlp": (MLP((256, 256), 10), IMAGE),
    "cnn": (CNN(classes=10, channels=(16, 32), hidden=64), IMAGE),
    "resnet": (ResNet(10, (1, 1), stem="plain", stem_width=32, widths=(64, 128)), IMAGE),
    "vit": (ViT(10, 256, 2, 4, 4, size=32, unroll=2), IMAGE),
    "mixer": (Mixer(10, 512, 2, 4, size=32, unroll=2), IMAGE),
    "gpt": (GPT(512, 64, 128, 2, 4, unroll=2), TOKENS),
    "llama": (Llama(512, 64, 128, 2, 4, 2, 256, unroll=2), TOKENS),
    "bert": (TextClassifier(Bert(512, 64, 256, 2, 4, 1024, unroll=2), 10), TOKENS),
}


def state_of(tiny):
    return jax.eval_shape(lambda: init(tiny.task, SGD, 0, tiny.batch))


def counted(fn, *arguments, active=None):
    with lowered_for("definition"):
        return flops.count(jax.make_jaxpr(fn)(*arguments), active)


@pytest.mark.parametrize("tiny", first(9, [t for t in TINY if t.name not in GROUPED]), ids=str)
def test_the_jaxprs_products_are_those_of_the_lowered_program(tiny):
    state, step = state_of(tiny), make_step(tiny.task, SGD)
    text = jax.jit(step).lower(state, tiny.batch).compiler_ir("hlo").as_hlo_text()
    assert flops.count(jax.make_jaxpr(step)(state, tiny.batch)).total == sum(
        hlo.read(text, {"data": 1}).flops.values()
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_count_is_near_that_of_the_compiled_program(name):
    """The compiler also counts what lies between products, and not what a convolution does with padding."""
    model, inputs = FAMILIES[name]
    variables = jax.eval_shape(model.init, jax.random.key(0), inputs)

    def apply(variables, inputs):
        return model.apply(variables, inputs)

    compiled = jax.jit(apply).lower(variables, inputs).compile().cost_analysis()["flops"]
    assert counted(apply, variables, inputs).total == pytest.approx(compiled, rel=0.06)


@pytest.mark.parametrize(
    "tiny", [t for t in TINY if t.name in ("gpt-dropout", "llama-window-biases", "transformer")], ids=str
)
def test_without_rematerialisation_the_step_does_what_the_model_must(tiny):
    state = state_of(tiny)

    def loss(params, batch):
        keys_B = keys.per_example(jax.random.fold_in(jax.random.key(0), 0), jnp.arange(8))
        return tiny.task.loss(params, {}, batch, keys_B)[0].total

    trained = len(jax.tree.leaves(state.params))
    active = [i < trained for i in range(trained + len(tiny.batch))]
    whole = counted(make_step(tiny.task, SGD), state, tiny.batch)
    assert counted(loss, state.params, tiny.batch, active=active).total == whole.total


def test_gpt_3_is_as_large_as_the_formula_says():
    """24 L T M^2 + 4 L T^2 M + 2 T M V for the forward pass of a window; three times that with gradients."""
    M, L, T, V = 12288, 96, 2048, 50257
    model = gpt3_175b()
    tokens = jax.ShapeDtypeStruct((1, T), jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), tokens)
    leaves = len(jax.tree.leaves(variables))
    got = counted(lambda v, x: model.apply(v, x), variables, tokens, active=[True] * leaves + [False])
    assert got.total == 3 * (24 * L * T * M**2 + 4 * L * T**2 * M + 2 * T * M * V)


def test_every_second_layer_of_gpt_3_counts_the_keys_of_its_band_alone():
    M, L, T, V, band = 12288, 96, 2048, 50257, 256
    model = gpt3_175b(band=band)
    tokens = jax.ShapeDtypeStruct((1, T), jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), tokens)
    with lowered_for("counted"):
        got = flops.count(jax.make_jaxpr(lambda v, x: model.apply(v, x))(variables, tokens))
    assert got.total == 24 * L * T * M**2 + 2 * L * T * (T + band) * M + 2 * T * M * V


@pytest.mark.fast
def test_a_frozen_matrix_gets_no_gradient_and_passes_one_on():
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((4, 8), (8, 16), (16, 32))]
    got = counted(
        lambda x, frozen, w: x @ w @ frozen,
        shapes[0],
        jnp.zeros((16, 32)),
        jnp.zeros((8, 16)),
        active=[False, False, True],
    )
    assert sum(got.backward.values()) == 2 * 4 * 8 * 16 + 2 * 4 * 16 * 32


@pytest.mark.fast
def test_a_grouped_product_counts_each_row_once():
    x, w, sizes = jnp.zeros((12, 5)), jnp.zeros((3, 5, 7)), jnp.array([4, 0, 8])
    assert counted(jax.lax.ragged_dot, x, w, sizes).total == 2 * 12 * 5 * 7


@pytest.mark.fast
def test_a_scan_counts_as_often_as_it_runs():
    x = jnp.zeros((4, 4))
    got = counted(lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=9)[0], x)
    assert got.total == 9 * 2 * 4**3


@pytest.mark.fast
def test_what_nobody_uses_does_not_count():
    x = jnp.zeros((4, 4))
    assert counted(lambda x: (x @ x, x + 1)[1], x).total == 0


@pytest.mark.fast
def test_a_loop_whose_trips_the_data_decide_is_named():
    x = np.zeros((4, 4), np.float32)
    got = counted(lambda x: jax.lax.while_loop(lambda c: c.sum() < 1, lambda c: c @ c, x), x)
    assert (got.total, got.loops) == (2 * 4**3, 1)
