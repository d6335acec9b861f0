"""LoRA: counts by hand, bits that must not change, and NumPy's sum of kernel and product.

The tiny GPT: 2 layers, width 8, so that qkv is (2, 8, 24), out (2, 8, 8), up (2, 8, 32) and down (2, 32, 8).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from instances import first
from tiny import GPT_SIZES, images, tokens

from jaxmodels import Experiment, Options, optim, step
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.cnn import CNN
from jaxmodels.models.gpt import GPT
from jaxmodels.runs.checkpoint import Checkpoints
from jaxmodels.state import initial
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.language import next_token
from jaxmodels.tasks.lora import lora, merge, unmerge
from jaxmodels.tasks.pretrained import start_from
from jaxmodels.training import runner

fast = pytest.mark.fast

TASK = next_token(GPT(**GPT_SIZES))
QKV, UP = "blocks/qkv/kernel", "blocks/up/kernel"
BATCH = tokens()
KEY = jax.random.key(3)


def adapted(**options):
    return lora(TASK, **{"rank": 2, "alpha": 3.0, "paths": r"blocks/(qkv|up)/kernel", **options})


def some(task=None):
    """(adapters that are not zero, extra)."""
    adapters, extra = jax.jit((task or adapted()).init)(KEY, BATCH)
    return jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), adapters
    ), extra


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
@fast
def test_adapters_have_the_hand_counted_sizes():
    """Two layers of 8 x 2 + 2 x 24 for qkv, and of 8 x 2 + 2 x 32 for up."""
    adapters, _ = jax.eval_shape(adapted().init, KEY, BATCH)
    assert jax.tree.map(lambda x: x.shape, adapters) == {
        QKV: {"a": (2, 8, 2), "b": (2, 2, 24)},
        UP: {"a": (2, 8, 2), "b": (2, 2, 32)},
    }
    assert sum(x.size for x in jax.tree.leaves(adapters)) == 2 * (16 + 48) + 2 * (16 + 64)


@fast
def test_by_default_queries_and_values_are_adapted():
    adapters, _ = jax.eval_shape(lora(TASK, rank=4, alpha=8).init, KEY, BATCH)
    assert set(adapters) == {QKV}


@fast
def test_a_kernel_outside_a_scan_gets_one_pair():
    task = lora(classify(CNN(classes=5, channels=(3,), hidden=6)), rank=2, alpha=1, paths="head/kernel")
    adapters, _ = jax.eval_shape(task.init, KEY, images())
    assert jax.tree.map(lambda x: x.shape, adapters) == {"head/kernel": {"a": (6, 2), "b": (2, 5)}}


@pytest.mark.slow
@fast
def test_the_base_is_what_the_task_alone_starts_from():
    _, extra = adapted().init(KEY, BATCH)
    same(extra["base"], TASK.init(KEY, BATCH)[0])


@pytest.mark.slow
@fast
def test_pretrained_parameters_become_the_base():
    given = jax.tree.map(lambda x: np.asarray(x) + 1, TASK.init(KEY, BATCH)[0])
    _, extra = jax.jit(lora(start_from(TASK, given), rank=2, alpha=1).init)(jax.random.key(9), BATCH)
    same(extra["base"], given)


@pytest.mark.slow
@fast
def test_first_factors_are_normal_with_variance_one_over_the_inputs_and_second_ones_zero():
    wide = next_token(GPT(**{**GPT_SIZES, "width": 64}))
    adapters, _ = jax.jit(lora(wide, rank=32, alpha=1).init)(KEY, BATCH)
    a = np.asarray(adapters[QKV]["a"])
    assert not adapters[QKV]["b"].any()
    np.testing.assert_allclose([a.mean(), a.std() * 8], [0, 1], atol=0.05)
    assert not np.array_equal(a[0], a[1])


@pytest.mark.slow
@fast
def test_at_the_start_training_and_evaluation_are_the_base_models_exactly():
    task = adapted()
    adapters, extra = task.init(KEY, BATCH)
    keys_B = jax.random.split(KEY, 8)
    same(jax.jit(task.evaluate)(adapters, extra, BATCH), jax.jit(TASK.evaluate)(extra["base"], {}, BATCH))
    same(
        jax.jit(task.loss)(adapters, extra, BATCH, keys_B)[0],
        jax.jit(TASK.loss)(extra["base"], {}, BATCH, keys_B)[0],
    )


@pytest.mark.slow
@fast
def test_merging_adds_the_scaled_product_of_each_layer_and_nothing_elsewhere():
    adapters, extra = some()
    merged = merge(extra["base"], adapters, 1.5)
    for name in ("qkv", "up"):
        pair = jax.tree.map(np.asarray, adapters[f"blocks/{name}/kernel"])
        want = np.asarray(extra["base"]["blocks"][name]["kernel"], np.float64)
        want = want + 1.5 * np.stack([pair["a"][n].astype(np.float64) @ pair["b"][n] for n in range(2)])
        np.testing.assert_allclose(merged["blocks"][name].pop("kernel"), want, rtol=1e-5, atol=1e-6)
        extra["base"]["blocks"][name].pop("kernel")
    same(merged, extra["base"])


@pytest.mark.slow
@fast
def test_the_scale_is_alpha_over_rank():
    adapters, extra = some()
    wanted = TASK.evaluate(merge(extra["base"], adapters, 1.5), {}, BATCH)
    same(adapted(rank=2, alpha=3).evaluate(adapters, extra, BATCH), wanted)


@pytest.mark.parametrize("rank", first(1, [2, 1, 5]))
@pytest.mark.parametrize("compiled", [jax.jit, lambda f: f], ids=["jit", "eager"])
def test_the_merged_model_evaluates_to_the_same_bits(rank, compiled):
    task = adapted(rank=rank, alpha=0.7)
    adapters, extra = some(task)
    got = jax.jit(task.evaluate)(adapters, extra, BATCH)
    merged = compiled(lambda base, adapters: merge(base, adapters, 0.7 / rank))(extra["base"], adapters)
    same(got, jax.jit(TASK.evaluate)(merged, {}, BATCH))
    assert float(got["loss"].total) != float(jax.jit(TASK.evaluate)(extra["base"], {}, BATCH)["loss"].total)


@pytest.mark.slow
@fast
def test_unmerging_gives_the_base_to_one_unit_in_the_last_place_of_the_larger():
    adapters, extra = some()
    merged = merge(extra["base"], adapters, 1.5)

    def close(w, m, back):
        unit = np.spacing(np.maximum(np.abs(w), np.abs(m)))
        assert (np.abs(np.asarray(back) - np.asarray(w)) <= unit).all()

    jax.tree.map(close, extra["base"], merged, unmerge(merged, adapters, 1.5))


@pytest.mark.slow
@fast
def test_the_gradient_is_that_of_the_merged_kernel_through_the_product():
    """d loss / d a = scale x (d loss / d W) b^T, and d loss / d b = scale x a^T (d loss / d W)."""
    task = adapted()
    adapters, extra = some(task)
    keys_B = jax.random.split(KEY, 8)
    got = jax.jit(jax.grad(lambda p: task.loss(p, extra, BATCH, keys_B)[0].total))(adapters)
    merged = merge(extra["base"], adapters, 1.5)
    inner = jax.jit(jax.grad(lambda p: TASK.loss(p, {}, BATCH, keys_B)[0].total))(merged)
    g = np.asarray(inner["blocks"]["qkv"]["kernel"])
    a, b = np.asarray(adapters[QKV]["a"]), np.asarray(adapters[QKV]["b"])
    assert jax.tree.structure(got) == jax.tree.structure(adapters)
    np.testing.assert_allclose(got[QKV]["a"], 1.5 * g @ b.swapaxes(1, 2), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(got[QKV]["b"], 1.5 * a.swapaxes(1, 2) @ g, rtol=1e-3, atol=1e-5)


def experiment(**options):
    pipeline = ArrayPipeline(BATCH, batch=8, seed=0)
    return Experiment(
        task=adapted(**options), optimizer=optim.adam(0.1), train=pipeline, steps=3, evals={"test": pipeline}
    )


def test_three_steps_of_a_run_change_every_adapter_and_no_bit_of_the_base():
    one = experiment()
    before = jax.jit(lambda: initial(one))()
    after = runner.run(one, Options(mesh="data=1")).state
    same(after.extra["base"], before.extra["base"])
    jax.tree.map(
        lambda old, new: np.testing.assert_array_less(0, np.abs(new - old).max()), before.params, after.params
    )
    sizes = {x.shape for x in jax.tree.leaves(after.opt_state) if x.ndim}
    assert sizes == {x.shape for x in jax.tree.leaves(after.params)}


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_on_several_devices_the_base_keeps_its_bits_too(mode):
    one = experiment()
    before = jax.jit(lambda: initial(one))()
    after = runner.run(one, Options(mesh="data=4", compile=mode)).state
    same(after.extra["base"], before.extra["base"])


def test_what_a_run_evaluates_is_the_merged_model():
    result = runner.run(experiment(), Options(mesh="data=1"))
    merged = merge(result.state.extra["base"], result.state.params, 1.5)
    loss = jax.jit(TASK.evaluate)(merged, {}, BATCH)["loss"]
    assert result.metrics["test/loss"] == pytest.approx(float(loss.total / loss.weight), rel=1e-6)


def test_a_checkpoint_holds_adapters_and_base(tmp_path):
    state = jax.jit(lambda: initial(experiment()))()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, state, {})
    checkpoints.close()
    _, restored, _ = Checkpoints(tmp_path).restore(jax.eval_shape(lambda: initial(experiment())))
    same((restored.params, restored.extra), (state.params, state.extra))


def test_other_state_of_the_task_goes_on_beside_the_base():
    """Batch statistics move in training; evaluation sees them."""
    inner = classify(CNN(classes=5, channels=(3,), hidden=6, batch_norm=True))
    task, batch = lora(inner, rank=2, alpha=1, paths="dense/kernel"), images()
    state = step.init(task, optim.sgd(0.1), 0, batch)
    state, _ = jax.jit(step.make_step(task, optim.sgd(0.1)))(state, batch)
    own = {name: x for name, x in state.extra.items() if name != "base"}
    assert own and set(own) == set(inner.init(KEY, batch)[1])
    merged = merge(state.extra["base"], state.params, 0.5)
    same(
        jax.jit(task.evaluate)(state.params, state.extra, batch), jax.jit(inner.evaluate)(merged, own, batch)
    )


@pytest.mark.slow
@fast
def test_mixed_precision_reaches_every_parameter_and_leaves_the_base_as_it_is():
    adapters, extra = some()
    seen = []

    def loss(params, extra, batch, keys_B):
        seen.extend(x.dtype for x in jax.tree.leaves(params))
        return TASK.loss(params, extra, batch, keys_B)

    task = lora(TASK._replace(loss=loss), rank=2, alpha=3.0)
    narrow = step.cast_floats({QKV: adapters[QKV]}, jnp.bfloat16)
    _, after, _ = jax.eval_shape(task.loss, narrow, extra, BATCH, jax.random.split(KEY, 8))
    assert set(seen) == {jnp.dtype("bfloat16")}
    assert {x.dtype for x in jax.tree.leaves(after)} == {jnp.dtype("float32")}


@fast
def test_a_narrow_base_keeps_its_type_and_has_adapters_of_float32():
    half = TASK._replace(
        init=lambda key, batch: (step.cast_floats(TASK.init(key, batch)[0], jnp.bfloat16), {})
    )
    adapters, extra = jax.eval_shape(lora(half, rank=2, alpha=1).init, KEY, BATCH)
    merged = jax.eval_shape(merge, extra["base"], adapters, 1.0)
    assert {x.dtype for x in jax.tree.leaves(adapters)} == {jnp.dtype("float32")}
    assert {x.dtype for x in jax.tree.leaves(merged)} == {jnp.dtype("bfloat16")}


@pytest.mark.slow
@fast
def test_alpha_may_be_a_traced_value():
    adapters, extra = some()
    traced = jax.jit(lambda alpha: adapted(alpha=alpha).evaluate(adapters, extra, BATCH)["loss"].total)(3.0)
    np.testing.assert_allclose(traced, adapted().evaluate(adapters, extra, BATCH)["loss"].total, rtol=1e-6)


@pytest.mark.slow
@fast
def test_the_programs_hold_no_array_of_the_models_size():
    task = adapted()
    adapters, extra = some(task)
    update = optax.sgd(0.1)
    state = step.State(
        jnp.zeros((), jnp.int32), KEY, adapters, extra, update.init(adapters), jnp.zeros((), jnp.int32)
    )
    constants = jax.make_jaxpr(step.make_step(task, update))(state, BATCH).consts
    assert all(np.size(x) < 64 for x in constants)


@pytest.mark.slow
@fast
def test_an_expression_that_finds_nothing_is_an_error_that_shows_paths():
    with pytest.raises(
        ValueError, match=r"'blocks/query' *, which matches no parameter; expected .*blocks/down/bias"
    ):
        adapted(paths="blocks/query").init(KEY, BATCH)


@pytest.mark.slow
@fast
def test_a_vector_cannot_be_adapted():
    with pytest.raises(ValueError, match=r"got norm/scale of the shape \(8,\); expected kernels"):
        adapted(paths="^norm/scale").init(KEY, BATCH)


@fast
def test_a_rank_below_one_is_an_error():
    with pytest.raises(ValueError, match="got rank=0; expected at least 1"):
        adapted(rank=0)


@pytest.mark.slow
@fast
def test_adapters_of_another_model_are_an_error():
    adapters, extra = some()
    with pytest.raises(
        ValueError, match="got an adapter of blocks/other/kernel, which the parameters do not have"
    ):
        merge(extra["base"], {"blocks/other/kernel": adapters[QKV]}, 1.0)
