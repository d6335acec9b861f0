"""What every model with every task must do; the list is in tiny.py.

Batch normalisation looks at the whole of what it is given. Under jit that is the global batch; under pmap it
is one device's part, and with accumulation one micro-batch, as in the papers that used it. There the
agreement with the undivided batch is not asked for, and a test says what holds instead.
"""

from __future__ import annotations

import re
from functools import cache, cached_property

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from instances import first
from tiny import TINY, B, Tiny

from jaxmodels import keys, parallel
from jaxmodels.parallel import rules
from jaxmodels.step import cast_floats, init, make_evaluate, make_step
from jaxmodels.task import Mean

RATE = 0.3

ALL = [pytest.param(tiny, id=tiny.name, marks=[pytest.mark.thorough] if tiny.second else []) for tiny in TINY]
every = pytest.mark.parametrize("tiny", ALL)
every_sum = pytest.mark.parametrize("tiny", [p for p in ALL if not p.values[0].norm_per_device])
every_norm = pytest.mark.parametrize("tiny", [p for p in ALL if p.values[0].norm_per_device])


def third(n: int, *, sums: bool = False):
    """One model in three, the n-th of them; all where there is time. For what hardly depends on the model."""
    marked = []
    for i, of in enumerate(p for p in ALL if not (sums and p.values[0].norm_per_device)):
        marks = of.marks if i % 3 == n else [pytest.mark.thorough]
        marked.append(pytest.param(*of.values, id=of.id, marks=marks))
    return pytest.mark.parametrize("tiny", marked)


def _show(grads, state, params=None):
    return jax.tree.map(lambda g: -RATE * g, grads), grads


# Plain SGD whose state is the gradient that it saw last.
SGD = optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), _show)


class Case:
    """One tiny problem with its compiled functions, which the tests of a session share."""

    def __init__(self, tiny: Tiny):
        self.tiny, self.task = tiny, tiny.task

    @cached_property
    def init(self):
        return jax.jit(lambda batch: init(self.task, SGD, 0, batch))

    @cached_property
    def state(self):
        return self.init(self.tiny.batch)

    @cached_property
    def keys(self):
        return keys.per_example(jax.random.fold_in(self.state.key, 0), jnp.arange(B))

    @cached_property
    def step(self):
        return jax.jit(make_step(self.task, SGD))

    @cached_property
    def loss(self):
        return jax.jit(self.task.loss)

    @cached_property
    def evaluate(self):
        return jax.jit(self.task.evaluate)

    @cached_property
    def contributions(self):
        """What each example alone adds to each metric."""

        def alone(params, extra, batch):
            def at(i):
                return self.task.evaluate(
                    params, extra, {**batch, "weight": weighted(batch["weight"], jnp.arange(B) == i)}
                )

            return jax.lax.map(at, jnp.arange(B))

        return jax.jit(alone)

    @cache  # noqa: B019  (lives as long as the session)
    def divided(self, mode: str, axes: str):
        """(state on the mesh, its compiled step, the mesh)."""
        mesh = parallel.make_mesh(axes)
        shardings = rules.state_shardings(self.state, mesh)
        step = make_step(self.task, SGD, axis=parallel.PMAP_AXIS if mode == "pmap" else None)
        compiled = parallel.compile_step(
            lambda s, _, b: step(s, b), mode, mesh, shardings, leading=0, donate=False
        )
        state = jax.device_put(self.state, shardings)
        moving = put(self.tiny.batch, mesh)
        return (
            state,
            compiled.lower(state, {}, moving).compile(),
            mesh,
        )  # else pmap compiles for its own outputs again


def put(batch, mesh):
    """The batch, split over the mesh."""
    return parallel.put(lambda start, stop: {name: x[start:stop] for name, x in batch.items()}, B, mesh)


@cache
def case(tiny: Tiny) -> Case:
    return Case(tiny)


def weighted(weight, factor_B):
    return weight * factor_B.astype(weight.dtype).reshape(B, *(1,) * (weight.ndim - 1))


def batch_at(tiny: Tiny, step: int, weight_B=None) -> dict[str, np.ndarray]:
    """A different order of the tiny batch at each step; the weights stay where they are."""
    batch = {name: np.roll(x, step, axis=0) for name, x in tiny.batch.items()}
    return (
        batch
        if weight_B is None
        else {**batch, "weight": weighted(tiny.batch["weight"], np.asarray(weight_B))}
    )


def garbage(tiny: Tiny, rows) -> dict[str, np.ndarray]:
    """The tiny batch with nonsense in these rows: nan, or other integers of the same range."""
    batch = {name: x.copy() for name, x in tiny.batch.items()}
    for name, x in batch.items():
        if name != "weight":
            x[rows] = np.nan if np.issubdtype(x.dtype, np.floating) else (x[rows] + 1) % (x.max() + 1)
    return batch


def five_steps(state, step, batches):
    for batch in batches:
        state, metrics = step(state, batch)
    return state, metrics


def moved_from(params, seed: int = 0):
    """The parameters with noise added."""
    leaves, tree = jax.tree.flatten(params)
    random = np.random.default_rng(seed)
    return jax.tree.unflatten(
        tree, [x + 0.3 * random.normal(size=x.shape).astype(np.float32) for x in leaves]
    )


def close(a, b, atol=1e-5):
    chex.assert_trees_all_close(a, b, rtol=1e-5, atol=atol)


def moved(a, b) -> float:
    pairs = zip(
        *map(jax.tree.leaves, jax.device_get((a, b))), strict=True
    )  # in NumPy, which compiles nothing
    return max(float(np.abs(x - y).max()) for x, y in pairs)


# Shapes and types


@every
@pytest.mark.fast
def test_loss_and_metrics_are_float32_scalar_means(tiny):
    shapes = jax.eval_shape(lambda key, batch: tiny.task.init(key, batch), jax.random.key(0), tiny.batch)
    keys_B = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), B))
    loss, extra, metrics = jax.eval_shape(tiny.task.loss, *shapes, tiny.batch, keys_B)
    evaluated = jax.eval_shape(tiny.task.evaluate, *shapes, tiny.batch)
    assert {"loss"} <= set(metrics) and {"loss"} <= set(evaluated)
    for mean in (loss, *metrics.values(), *evaluated.values()):
        assert isinstance(mean, Mean)
        assert [(x.shape, x.dtype) for x in mean] == [((), jnp.float32)] * 2
    chex.assert_trees_all_equal_shapes_and_dtypes(extra, shapes[1])


@every
@pytest.mark.fast
def test_parameters_are_float32(tiny):
    params, _ = jax.eval_shape(tiny.task.init, jax.random.key(0), tiny.batch)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


@third(0)
@pytest.mark.fast
def test_the_initial_variables_do_not_depend_on_the_values_in_the_batch(tiny):
    zeros = case(tiny).init({name: np.zeros_like(x) for name, x in tiny.batch.items()})
    chex.assert_trees_all_equal(
        (zeros.params, zeros.extra), (case(tiny).state.params, case(tiny).state.extra)
    )


# Training


@third(0)
def test_jit_computes_what_plain_python_computes(tiny):
    c = case(tiny)
    arguments = (c.state.params, c.state.extra, tiny.batch, c.keys)
    close(c.loss(*arguments), tiny.task.loss(*arguments))


@every
def test_every_parameter_gets_a_gradient(tiny):
    params = moved_from(case(tiny).state.params)  # where small initial values hide no gradient
    state, _ = case(tiny).step(case(tiny).state._replace(params=params), tiny.batch)
    grads = jax.tree.leaves_with_path(jax.device_get(state.opt_state))
    sizes = {jax.tree_util.keystr(path): float(np.abs(g).max()) for path, g in grads}
    nothing = {
        path for path, size in sizes.items() if not size > 1e-6 * max(sizes.values())
    }  # above rounding
    assert nothing == {path for path in sizes if tiny.idle and re.search(tiny.idle, path)}


@every
def test_the_keys_matter_where_the_model_is_random_and_nowhere_else(tiny):
    c = case(tiny)
    state, now = c.step(c.state, tiny.batch)
    same, again = c.step(c.state, tiny.batch)
    chex.assert_trees_all_equal((state.opt_state, now["loss"]), (same.opt_state, again["loss"]))
    later, then = c.step(c.state._replace(step=c.state.step + 1), tiny.batch)
    assert (float(then["loss"].total) != float(now["loss"].total)) == tiny.random
    assert (moved(later.opt_state, state.opt_state) > 0) == tiny.random


@pytest.mark.parametrize("tiny", first(2, TINY[2::4]), ids=str)  # the step is the same for all
def test_a_scan_over_steps_equals_single_steps(tiny):
    c = case(tiny)
    batches = [batch_at(tiny, i) for i in range(5)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *batches)
    scanned, metrics = jax.jit(lambda s, b: jax.lax.scan(make_step(tiny.task, SGD), s, b))(c.state, stacked)
    single, last = five_steps(c.state, c.step, batches)
    assert int(scanned.step) == int(single.step) == 5
    close(scanned.params, single.params)
    close(scanned.extra, single.extra)
    close(jax.tree.map(lambda x: x[-1], metrics), last)


@third(1, sums=True)
def test_two_micro_batches_equal_the_whole_batch(tiny):
    c = case(tiny)
    batch = batch_at(tiny, 0, [1, 0, 0, 1, 1, 1, 0.5, 1])  # rows 0, 2, 4, 6 and 1, 3, 5, 7: weights 2.5 and 3
    whole, metrics = c.step(c.state, batch)
    parts, added = jax.jit(make_step(tiny.task, SGD, accumulate=2))(c.state, batch)
    close(parts.opt_state, whole.opt_state, atol=1e-6)
    close(added, metrics)


@every_norm
def test_batch_statistics_are_those_of_each_micro_batch(tiny):
    c = case(tiny)
    parts, _ = jax.jit(make_step(tiny.task, SGD, accumulate=2))(c.state, tiny.batch)
    extra = c.state.extra
    for j in range(2):
        half = {name: x[j::2] for name, x in tiny.batch.items()}
        _, extra, _ = c.loss(c.state.params, extra, half, c.keys[j::2])
    close(parts.extra, extra)


@third(2, sums=True)
def test_padding_changes_no_gradient(tiny):
    c = case(tiny)
    whole, metrics = c.step(c.state, batch_at(tiny, 0, [1, 1, 1, 1, 1, 0, 0, 0]))
    five, fewer = c.step(c.state, {name: x[:5] for name, x in tiny.batch.items()})
    close(whole.opt_state, five.opt_state, atol=1e-6)
    close(metrics, fewer)


@every_norm
def test_padding_counts_in_no_statistics_and_so_changes_no_gradient_either(tiny):
    c = case(tiny)
    whole, metrics = c.step(c.state, batch_at(tiny, 0, [1, 1, 1, 1, 1, 0, 0, 0]))
    five, fewer = c.step(c.state, {name: x[:5] for name, x in tiny.batch.items()})
    close(whole.extra, five.extra)
    close(whole.opt_state, five.opt_state, atol=1e-6)
    close(metrics, fewer)


@every_norm
def test_a_micro_batch_of_padding_alone_leaves_the_statistics(tiny):
    """Rows 1, 3, 5 and 7 are the second one."""
    c = case(tiny)
    parts, _ = jax.jit(make_step(tiny.task, SGD, accumulate=2))(c.state, batch_at(tiny, 0, [1, 0] * 4))
    _, extra, _ = c.loss(
        c.state.params, c.state.extra, {name: x[::2] for name, x in tiny.batch.items()}, c.keys[::2]
    )
    close(parts.extra, extra)


# Devices


def agrees_on(axes: str, tiny: Tiny, mode: str, weight_B=None):
    """Five steps on this mesh give what one device gives; returns the state as it lies on the mesh."""
    c = case(tiny)
    batches = [batch_at(tiny, i, weight_B) for i in range(5)]
    one, metrics = five_steps(c.state, c.step, batches)
    state, compiled, mesh = c.divided(mode, axes)

    def step(state, batch):
        return jax.block_until_ready(compiled(state, {}, put(batch, mesh)))

    placed, added = five_steps(state, step, batches)
    assert len(jax.tree.leaves(placed.params)[0].sharding.device_set) == mesh.size
    assert moved(one.params, c.state.params) > 1e-3  # what is compared is more than the start
    several = jax.device_get(placed)
    close(several.params, one.params)
    close(several.opt_state, one.opt_state)
    close(several.extra, one.extra)
    close(jax.device_get(added), metrics)
    return placed


@third(1)
def test_four_devices_under_jit_that_split_batch_and_parameters_equal_one(tiny):
    state = agrees_on("data=2,fsdp=2", tiny, "jit")
    assert any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state.params))


@third(1)
def test_four_devices_under_jit_equal_one_though_one_holds_only_padding(tiny):
    agrees_on("data=2,fsdp=2", tiny, "jit", [1, 0, 0, 0, 1, 1, 1, 1])


@third(0, sums=True)
def test_two_devices_under_pmap_equal_one(tiny):
    agrees_on("data=2", tiny, "pmap")


@third(0, sums=True)
def test_two_devices_under_pmap_equal_one_though_one_holds_mostly_padding(tiny):
    agrees_on("data=2", tiny, "pmap", [1, 0, 0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize("tiny", first(1, [t for t in TINY if t.norm_per_device]), ids=str)
def test_batch_statistics_under_pmap_are_means_of_each_device(tiny):
    c = case(tiny)
    state, compiled, mesh = c.divided("pmap", "data=2")
    two, metrics = jax.device_get(jax.block_until_ready(compiled(state, {}, put(tiny.batch, mesh))))
    halves = [
        c.loss(c.state.params, c.state.extra, {name: x[part] for name, x in tiny.batch.items()}, c.keys[part])
        for part in (slice(B // 2), slice(B // 2, B))
    ]
    close(two.extra, jax.tree.map(lambda a, b: (a + b) / 2, halves[0][1], halves[1][1]))
    close(metrics["loss"], halves[0][0] + halves[1][0])


# Evaluation


@third(1)
@pytest.mark.fast
def test_evaluation_is_deterministic_and_independent_of_how_it_is_compiled(tiny):
    c = case(tiny)
    once = c.evaluate(c.state.params, c.state.extra, tiny.batch)
    chex.assert_trees_all_equal(once, c.evaluate(c.state.params, c.state.extra, tiny.batch))
    close(once, jax.tree.map(lambda x: x.sum(), c.contributions(c.state.params, c.state.extra, tiny.batch)))


@every
@pytest.mark.fast
def test_no_example_sees_another_in_evaluation(tiny):
    c = case(tiny)
    others = np.arange(B) != 3
    before = c.contributions(c.state.params, c.state.extra, tiny.batch)
    after = c.contributions(c.state.params, c.state.extra, garbage(tiny, [3]))
    close(jax.tree.map(lambda x: x[others], after), jax.tree.map(lambda x: x[others], before), atol=1e-6)
    assert not np.array_equal(after["loss"].total[3], before["loss"].total[3])


@every
@pytest.mark.fast
def test_no_output_sees_another_example(tiny):
    if tiny.outputs is None:
        pytest.skip("this task has no outputs by example")
    c = case(tiny)
    others = np.arange(B) != 3
    outputs = jax.jit(tiny.outputs)
    before = outputs(c.state.params, c.state.extra, tiny.batch)
    after = outputs(c.state.params, c.state.extra, garbage(tiny, [3]))
    close(jax.tree.map(lambda x: x[others], after), jax.tree.map(lambda x: x[others], before), atol=1e-6)


@every
@pytest.mark.fast
def test_garbage_in_padding_changes_no_metric(tiny):
    c = case(tiny)
    weight = weighted(tiny.batch["weight"], np.array([1, 1, 0, 1, 1, 1, 0, 0]))
    clean = c.evaluate(c.state.params, c.state.extra, {**tiny.batch, "weight": weight})
    dirty = c.evaluate(c.state.params, c.state.extra, {**garbage(tiny, [2, 6, 7]), "weight": weight})
    close(dirty, clean, atol=1e-6)
    assert (
        0
        < float(clean["loss"].weight)
        < float(c.evaluate(c.state.params, c.state.extra, tiny.batch)["loss"].weight)
    )


@every
@pytest.mark.fast
def test_metrics_are_finished_from_means(tiny):
    names = jax.eval_shape(
        tiny.task.evaluate, *jax.eval_shape(tiny.task.init, jax.random.key(0), tiny.batch), tiny.batch
    )
    finished = tiny.task.finish(dict.fromkeys(names, 0.5))
    assert set(names) <= set(finished)
    assert all(isinstance(x, float) for x in finished.values())


# Mixed precision


@third(2)
def test_bfloat16_keeps_the_update_in_float32_and_the_loss_near(tiny):
    c = case(tiny)
    full, metrics = c.step(c.state, tiny.batch)
    half, rounded = jax.jit(make_step(tiny.task, SGD, precision=jnp.bfloat16))(c.state, tiny.batch)
    chex.assert_trees_all_equal_shapes_and_dtypes((half, rounded), (full, metrics))
    assert {x.dtype for x in jax.tree.leaves((half.params, half.opt_state))} == {jnp.dtype(jnp.float32)}
    chex.assert_tree_all_finite((half.params, half.opt_state))
    assert float(rounded["loss"].total) == pytest.approx(float(metrics["loss"].total), rel=0.03)
    assert float(rounded["loss"].total) != float(metrics["loss"].total)


@every
@pytest.mark.fast
def test_bfloat16_reaches_every_matrix_product(tiny):
    c = case(tiny)
    evaluate = make_evaluate(tiny.task, precision=jnp.bfloat16)

    def train(params, extra, batch, keys_B):
        return tiny.task.loss(cast_floats(params, jnp.bfloat16), extra, batch, keys_B)

    for fn, arguments in ((evaluate, ()), (train, (c.keys,))):
        text = jax.jit(fn).lower(c.state.params, c.state.extra, tiny.batch, *arguments).as_text()
        products = re.findall(r"stablehlo\.(?:dot_general|convolution).* : \((.*)\) ->", text)
        assert products
        assert not [
            operands
            for operands in products
            if "f32" in operands and not (tiny.float32 and tiny.float32 in operands)
        ]
