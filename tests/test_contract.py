"""What every model family and every task must do. The list and the reasons of exceptions are in tiny.py.

Batch normalisation looks at the whole of what it is given. Under jit that is the global batch; under pmap it
is one device's part, and with accumulation one micro-batch, as in the papers that used it. There the
agreement with the undivided batch is not asked for, and a test says what holds instead.

Each property that a model can break by itself is tested for every model. What rests on the step and hardly
on the model is tested for one model in twelve, each property for others; `pytest -m thorough` adds the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from instances import first
from tiny import EXCEPTIONS, FLOAT32, IDLE, NOT_HERE, RATE, TINY, B, Tiny

import jaxmodels
from jaxmodels import keys
from jaxmodels.parallel import rules
from jaxmodels.parallel.compile import PMAP_AXIS, compile_step
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.parallel.placement import put_batch
from jaxmodels.step import cast_floats, init, make_evaluate, make_step
from jaxmodels.task import Mean

PARTS, EVALUATION = "parts of a batch add up to the batch", "the loss has an evaluation"
GRADIENT, BFLOAT16 = "every parameter has a gradient", "products are in bfloat16"
ROUNDING = "bfloat16 rounds the first loss"

ALL = [pytest.param(tiny, id=tiny.name, marks=[pytest.mark.thorough] if tiny.second else []) for tiny in TINY]
SUMS = [p for p in ALL if not p.values[0].exempt(PARTS)]
STATISTICS = [p for p in ALL if p.values[0].exempt(PARTS) and p.values[0].has_statistics()]
every = pytest.mark.parametrize("tiny", ALL)


def some(n: int, instances: list, *, of: int = 12):
    """One model in twelve, the n-th; the others are thorough. For what hardly depends on the model."""
    marked = []
    for i, one in enumerate(instances):
        marks = one.marks if i % of == n else [pytest.mark.thorough]
        marked.append(pytest.param(*one.values, id=one.id, marks=marks))
    return pytest.mark.parametrize("tiny", marked)


def sgd(rate: float) -> optax.GradientTransformation:
    """Plain SGD whose state is the gradient that it saw last."""

    def update(grads, state, params=None):
        return jax.tree.map(lambda g: -rate * g, grads), grads

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


class Case:
    """One tiny problem with its compiled functions, which the tests of a session share."""

    def __init__(self, tiny: Tiny):
        self.tiny, self.task, self.sgd = tiny, tiny.task, sgd(RATE.get(tiny.name, 0.3))

    @cached_property
    def init(self):
        return jax.jit(lambda batch: init(self.task, self.sgd, 0, batch))

    @cached_property
    def state(self):
        return self.init(self.tiny.batch)

    @cached_property
    def keys(self):
        return keys.per_example(jax.random.fold_in(self.state.key, 0), jnp.arange(B))

    @cached_property
    def step(self):
        return jax.jit(make_step(self.task, self.sgd))

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
        mesh = make_mesh(axes)
        shardings = rules.state_shardings(self.state, mesh)
        step = make_step(self.task, self.sgd, axis=PMAP_AXIS if mode == "pmap" else None)
        compiled = compile_step(lambda s, _, b: step(s, b), mode, mesh, shardings, leading=0, donate=False)
        state = jax.device_put(self.state, shardings)
        moving = put(self.tiny.batch, mesh)
        return (
            state,
            compiled.lower(state, {}, moving).compile(),
            mesh,
        )  # else pmap compiles for its own outputs again


def put(batch, mesh):
    """The batch, split over the mesh."""
    return put_batch(lambda start, stop: {name: x[start:stop] for name, x in batch.items()}, B, mesh)


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


def headline(metrics) -> str:
    """The loss, or what a task without an evaluation of its loss measures."""
    return "loss" if "loss" in metrics else next(iter(metrics))


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


# The list


def modules_in(folder: str) -> set[str]:
    files = (Path(jaxmodels.__file__).parent / folder).glob("*.py")
    return {f"{folder}.{path.stem}" for path in files if path.stem != "__init__"}


def used_by(tiny: Tiny) -> Iterator[str]:
    """Modules of the task's functions, and of the layers that run when it makes its variables."""
    yield from (function.__module__ for function in tiny.task if function is not None)
    classes: set[type] = set()

    def note(call, args, kwargs, context):
        classes.update(type(context.module).__mro__)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(tiny.task.init, jax.random.key(0), tiny.batch)
    yield from (kind.__module__ for kind in classes)


def test_every_model_family_and_every_task_is_in_the_list_or_says_why_not():
    used = {module.removeprefix("jaxmodels.") for tiny in TINY for module in used_by(tiny)}
    files = modules_in("models") | modules_in("tasks")
    assert files - used <= NOT_HERE.keys() <= files


def test_names_are_unique_and_every_exception_is_of_one_of_them():
    names = [tiny.name for tiny in TINY]
    assert len({*names}) == len(names)
    assert {name for exempt in EXCEPTIONS.values() for name in exempt} <= {*names}
    assert {*EXCEPTIONS} == {PARTS, EVALUATION, GRADIENT, BFLOAT16, ROUNDING}
    assert {*FLOAT32} == {*EXCEPTIONS[BFLOAT16]} and {*IDLE} <= {*EXCEPTIONS[GRADIENT]}


# Shapes and types


@every
def test_loss_and_metrics_are_float32_scalar_means(tiny):
    shapes = jax.eval_shape(lambda key, batch: tiny.task.init(key, batch), jax.random.key(0), tiny.batch)
    keys_B = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), B))
    loss, extra, metrics = jax.eval_shape(tiny.task.loss, *shapes, tiny.batch, keys_B)
    evaluated = jax.eval_shape(tiny.task.evaluate, *shapes, tiny.batch)
    assert "loss" in metrics and ("loss" in evaluated) != tiny.exempt(EVALUATION)
    for mean in (loss, *metrics.values(), *evaluated.values()):
        assert isinstance(mean, Mean)
        assert [(x.shape, x.dtype) for x in mean] == [((), jnp.float32)] * 2
    chex.assert_trees_all_equal_shapes_and_dtypes(extra, shapes[1])


@every
def test_parameters_are_float32(tiny):
    params, _ = jax.eval_shape(tiny.task.init, jax.random.key(0), tiny.batch)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


@some(0, ALL)
def test_the_initial_variables_do_not_depend_on_the_values_in_the_batch(tiny):
    zeros = case(tiny).init({name: np.zeros_like(x) for name, x in tiny.batch.items()})
    chex.assert_trees_all_equal(
        (zeros.params, zeros.extra), (case(tiny).state.params, case(tiny).state.extra)
    )


# Training


@some(7, ALL)
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
    idle = IDLE.get(tiny.name, r"blocks'\]\['key'\]\['bias") if tiny.exempt(GRADIENT) else None
    assert nothing == {path for path in sizes if idle and re.search(idle, path)}


@every
def test_the_keys_matter_where_the_model_is_random_and_nowhere_else(tiny):
    c = case(tiny)
    state, now = c.step(c.state, tiny.batch)
    same, again = c.step(c.state, tiny.batch)
    chex.assert_trees_all_equal((state.opt_state, now["loss"]), (same.opt_state, again["loss"]))
    later, then = c.step(c.state._replace(step=c.state.step + 1), tiny.batch)
    assert (float(then["loss"].total) != float(now["loss"].total)) == tiny.random
    assert (moved(later.opt_state, state.opt_state) > 0) == tiny.random


@pytest.mark.parametrize("tiny", first(1, TINY[2::6]), ids=str)  # the step is the same for all
def test_a_scan_over_steps_equals_single_steps(tiny):
    c = case(tiny)
    batches = [batch_at(tiny, i) for i in range(5)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *batches)
    scanned, metrics = jax.jit(lambda s, b: jax.lax.scan(make_step(tiny.task, c.sgd), s, b))(c.state, stacked)
    single, last = five_steps(c.state, c.step, batches)
    assert int(scanned.step) == int(single.step) == 5
    close(scanned.params, single.params)
    close(scanned.extra, single.extra)
    close(jax.tree.map(lambda x: x[-1], metrics), last)


@some(2, SUMS)
def test_two_micro_batches_equal_the_whole_batch(tiny):
    c = case(tiny)
    batch = batch_at(tiny, 0, [1, 0, 0, 1, 1, 1, 0.5, 1])  # rows 0, 2, 4, 6 and 1, 3, 5, 7: weights 2.5 and 3
    whole, metrics = c.step(c.state, batch)
    parts, added = jax.jit(make_step(tiny.task, c.sgd, accumulate=2))(c.state, batch)
    close(parts.opt_state, whole.opt_state, atol=1e-6)
    close(added, metrics)


@some(2, STATISTICS, of=4)
def test_batch_statistics_are_those_of_each_micro_batch(tiny):
    c = case(tiny)
    parts, _ = jax.jit(make_step(tiny.task, c.sgd, accumulate=2))(c.state, tiny.batch)
    extra = c.state.extra
    for j in range(2):
        half = {name: x[j::2] for name, x in tiny.batch.items()}
        _, extra, _ = c.loss(c.state.params, extra, half, c.keys[j::2])
    close(parts.extra, extra)


@some(9, [p for p in ALL if p not in STATISTICS])
def test_padding_changes_no_gradient(tiny):
    c = case(tiny)
    whole, metrics = c.step(c.state, batch_at(tiny, 0, [1, 1, 1, 1, 1, 0, 0, 0]))
    five, fewer = c.step(c.state, {name: x[:5] for name, x in tiny.batch.items()})
    close(whole.opt_state, five.opt_state, atol=1e-6)
    close(metrics, fewer)


@some(1, STATISTICS, of=4)
def test_padding_counts_in_no_statistics_and_so_changes_no_gradient_either(tiny):
    c = case(tiny)
    whole, metrics = c.step(c.state, batch_at(tiny, 0, [1, 1, 1, 1, 1, 0, 0, 0]))
    five, fewer = c.step(c.state, {name: x[:5] for name, x in tiny.batch.items()})
    close(whole.extra, five.extra)
    close(whole.opt_state, five.opt_state, atol=1e-6)
    close(metrics, fewer)


@some(0, STATISTICS, of=8)
def test_a_micro_batch_of_padding_alone_leaves_the_statistics(tiny):
    """Rows 1, 3, 5 and 7 are the second one."""
    c = case(tiny)
    parts, _ = jax.jit(make_step(tiny.task, c.sgd, accumulate=2))(c.state, batch_at(tiny, 0, [1, 0] * 4))
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
    assert moved(one.params, c.state.params) > 3e-4  # what is compared is more than the start
    several = jax.device_get(placed)
    close(several.params, one.params)
    close(several.opt_state, one.opt_state)
    close(several.extra, one.extra)
    close(jax.device_get(added), metrics)
    return placed


@some(4, ALL)
def test_four_devices_under_jit_that_split_batch_and_parameters_equal_one(tiny):
    state = agrees_on("data=2,fsdp=2", tiny, "jit")
    assert any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state.params))


@some(4, ALL)
def test_four_devices_under_jit_equal_one_though_one_holds_only_padding(tiny):
    agrees_on("data=2,fsdp=2", tiny, "jit", [1, 0, 0, 0, 1, 1, 1, 1])


@some(11, SUMS)
def test_two_devices_under_pmap_equal_one(tiny):
    agrees_on("data=2", tiny, "pmap")


@some(11, SUMS)
def test_two_devices_under_pmap_equal_one_though_one_holds_mostly_padding(tiny):
    agrees_on("data=2", tiny, "pmap", [1, 0, 0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize("tiny", first(1, [p.values[0] for p in STATISTICS]), ids=str)
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


@some(6, ALL)
def test_evaluation_is_deterministic_and_independent_of_how_it_is_compiled(tiny):
    c = case(tiny)
    once = c.evaluate(c.state.params, c.state.extra, tiny.batch)
    chex.assert_trees_all_equal(once, c.evaluate(c.state.params, c.state.extra, tiny.batch))
    close(once, jax.tree.map(lambda x: x.sum(), c.contributions(c.state.params, c.state.extra, tiny.batch)))


@every
def test_no_example_sees_another_in_evaluation(tiny):
    c = case(tiny)
    others = np.arange(B) != 3
    before = c.contributions(c.state.params, c.state.extra, tiny.batch)
    after = c.contributions(c.state.params, c.state.extra, garbage(tiny, [3]))
    close(jax.tree.map(lambda x: x[others], after), jax.tree.map(lambda x: x[others], before), atol=1e-6)
    changed = any(not np.array_equal(after[name].total[3], before[name].total[3]) for name in before)
    assert changed or tiny.exempt(EVALUATION)  # a part that is told apart may be the same


@some(4, [p for p in ALL if p.values[0].outputs], of=6)
def test_no_output_sees_another_example(tiny):
    c = case(tiny)
    others = np.arange(B) != 3
    outputs = jax.jit(tiny.outputs)
    before = outputs(c.state.params, c.state.extra, tiny.batch)
    after = outputs(c.state.params, c.state.extra, garbage(tiny, [3]))
    close(jax.tree.map(lambda x: x[others], after), jax.tree.map(lambda x: x[others], before), atol=1e-6)


@some(5, ALL, of=6)
def test_garbage_in_padding_changes_no_metric(tiny):
    c = case(tiny)
    weight = weighted(tiny.batch["weight"], np.array([1, 1, 0, 1, 1, 1, 0, 0]))
    clean = c.evaluate(c.state.params, c.state.extra, {**tiny.batch, "weight": weight})
    dirty = c.evaluate(c.state.params, c.state.extra, {**garbage(tiny, [2, 6, 7]), "weight": weight})
    close(dirty, clean, atol=1e-6)
    whole = c.evaluate(c.state.params, c.state.extra, tiny.batch)
    name = headline(whole)
    assert 0 < float(clean[name].weight) < float(whole[name].weight)


@every
def test_metrics_are_finished_from_means(tiny):
    names = jax.eval_shape(
        tiny.task.evaluate, *jax.eval_shape(tiny.task.init, jax.random.key(0), tiny.batch), tiny.batch
    )
    finished = tiny.task.finish(dict.fromkeys(names, 0.5))
    assert set(names) <= set(finished)
    assert all(isinstance(x, float) for x in finished.values())


# Mixed precision


@some(0, ALL)
def test_bfloat16_keeps_the_update_in_float32_and_the_loss_near(tiny):
    c = case(tiny)
    full, metrics = c.step(c.state, tiny.batch)
    half, rounded = jax.jit(make_step(tiny.task, c.sgd, precision=jnp.bfloat16))(c.state, tiny.batch)
    chex.assert_trees_all_equal_shapes_and_dtypes((half, rounded), (full, metrics))
    assert {x.dtype for x in jax.tree.leaves((half.params, half.opt_state))} == {jnp.dtype(jnp.float32)}
    chex.assert_tree_all_finite((half.params, half.opt_state))
    assert float(rounded["loss"].total) == pytest.approx(float(metrics["loss"].total), rel=0.03)
    assert (float(rounded["loss"].total) != float(metrics["loss"].total)) != tiny.exempt(ROUNDING)


@every
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
            if "f32" in operands and not (tiny.exempt(BFLOAT16) and re.search(FLOAT32[tiny.name], operands))
        ]
