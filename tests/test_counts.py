"""What a step asks for has not grown (benchmarks/counts.json), and its FLOPs are those that XLA counts.

XLA's own count sees the body of a loop once and counts more than products. So it is asked for the products of
a step alone, each as often as it runs, in a program that has nothing else.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from instances import first
from tiny import TINY

from jaxmodels import Experiment
from jaxmodels.analysis import flops
from jaxmodels.analysis.modules import modules
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.layers.attention import lowered_for
from jaxmodels.state import batch_shapes

PRODUCTS = ("dot_general", "ragged_dot_general", "conv_general_dilated")
GROUPED = {"moe-shared-remat": "XLA on CPUs computes every expert for every token, and masks"}
AUXILIARY = [tiny for tiny in TINY if tiny.name == "googlenet-auxiliary"]  # heads that training alone uses
OTHERS = AUXILIARY + [tiny for n in range(5) for tiny in TINY[n::5] if tiny not in AUXILIARY]
every = pytest.mark.parametrize("tiny", TINY, ids=str)


@pytest.fixture(scope="module")
def counts():
    path = Path(__file__).parents[1] / "benchmarks" / "counts.py"
    spec = importlib.util.spec_from_file_location("counts_of_steps", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@every
def test_a_models_step_asks_for_no_more_than_the_table_says(tiny, counts):
    if tiny.name not in counts.read():
        pytest.skip("new: python benchmarks/counts.py --write puts it into the table")
    found = counts.counts(tiny)
    assert not counts.grown(tiny.name, counts.row(found), counts.read(), found.where)


@pytest.mark.parametrize("name", ["mlp-dropout", "gpt-dropout"])
def test_devices_that_share_the_parameters_exchange_no_more_than_the_table_says(name, counts):
    [tiny] = [tiny for tiny in TINY if tiny.name == name]
    assert name in counts.SHARED
    title = f"{name} on four devices"
    assert not counts.grown(title, counts.shared(tiny), counts.read())


def test_a_run_compiles_three_programs_and_reads_one_array_a_dispatch(counts, tmp_path):
    found = counts.run(str(tmp_path / "run"))
    assert (
        found == counts.read()["a run of an MLP"] == {"compilations": 3, "dispatches": 12, "arrays read": 12}
    )


def test_the_table_has_nothing_that_is_not_counted(counts):
    more = {f"{name} on four devices" for name in counts.SHARED} | {"a run of an MLP"}
    assert set(counts.read()) <= {tiny.name for tiny in TINY} | more


def test_what_has_grown_is_named_with_its_place(counts):
    [tiny] = [tiny for tiny in TINY if tiny.name == "mlp-dropout"]

    def loss(params, extra, batch, keys_B):
        mean, extra, metrics = tiny.task.loss(params, extra, batch, keys_B)
        with jax.named_scope("Wasteful"):
            more = jnp.sort(batch["image"].reshape(-1)).sum()
            jax.debug.callback(lambda x: None, more)
        return mean._replace(total=mean.total + 0 * more), extra, metrics

    worse = counts.counts(counts.Tiny(name="worse", task=tiny.task._replace(loss=loss), batch=tiny.batch))
    complaints = counts.grown("mlp-dropout", counts.row(worse), counts.read(), worse.where)
    assert any("sort, got 1 (table: 0)" in line and "Wasteful" in line for line in complaints)
    assert any("host, got 1 (table: 0)" in line for line in complaints)


def test_a_step_that_changes_a_type_is_compiled_more_than_once(counts):
    [tiny] = [tiny for tiny in TINY if tiny.name == "mlp-dropout"]

    def start(key, batch):
        return tiny.task.init(key, batch)[0], {"n": jnp.int32(0)}

    def loss(params, extra, *rest):
        mean, _, metrics = tiny.task.loss(params, {}, *rest)
        return mean, {"n": jnp.float32(1)}, metrics

    changed = tiny.task._replace(init=start, loss=loss)
    assert counts.counts(counts.Tiny(name="changed", task=changed, batch=tiny.batch)).compilations == 2


@every
def test_the_flops_of_a_step_are_those_that_xla_counts_for_each_product(tiny, counts):
    """Exactly; XLA leaves out what a convolution does with its padding."""
    closed = counts.traced(tiny).jaxpr
    whole = 0.0
    for eqn, _, times in counts.equations(closed.jaxpr):
        if eqn.primitive.name in PRODUCTS:
            own = flops.of_equation(eqn)
            whole += times * own
            if not (eqn.primitive.name.startswith("ragged") and tiny.name in GROUPED):
                assert own * inside(eqn) == pytest.approx(by_xla(eqn), rel=1e-9), eqn
    assert whole == flops.count(closed).total > 0


def inside(eqn) -> float:
    """The share of a convolution's pairs of output position and kernel position that meet the input."""
    if eqn.primitive.name != "conv_general_dilated":
        return 1.0
    of = eqn.params
    numbers, share = of["dimension_numbers"], 1.0
    shapes = [v.aval.shape for v in (*eqn.invars, eqn.outvars[0])]
    ways = (*of["padding"],), of["window_strides"], of["lhs_dilation"], of["rhs_dilation"]
    for axis, ((low, _), stride, spread, apart) in enumerate(zip(*ways, strict=True), 2):
        x, k, out = (
            shape[spec[axis]]
            for shape, spec in zip(
                shapes, (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec), strict=True
            )
        )
        at = np.arange(out)[:, None] * stride - low + np.arange(k) * apart
        meets = (at >= 0) & (at <= (x - 1) * spread) & (at % spread == 0)
        share *= meets.sum() / (out * k / spread)
    return share


XLA: dict[tuple, float] = {}


def by_xla(eqn) -> float:
    """What XLA counts in a program of this product alone."""
    key = (eqn.primitive.name, str(eqn.params), *(str(v.aval) for v in eqn.invars))
    if key not in XLA:
        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
        lowered = jax.jit(lambda *x: eqn.primitive.bind(*x, **eqn.params)).lower(*shapes)
        XLA[key] = lowered.cost_analysis()["flops"]
    return XLA[key]


@pytest.mark.parametrize("tiny", first(10, OTHERS), ids=str)
def test_the_flops_and_parameters_of_the_modules_are_those_of_the_whole(tiny):
    data = ArrayPipeline(tiny.batch, batch=len(tiny.batch["weight"]), seed=0)
    experiment = Experiment(task=tiny.task, optimizer=optax.sgd(0.1), train=data, steps=1)
    params, extra = jax.eval_shape(tiny.task.init, jax.random.key(0), batch_shapes(data, 1))
    with lowered_for("definition"):
        whole = flops.count(jax.make_jaxpr(tiny.task.evaluate)(params, extra, batch_shapes(data, 1)))
    found = modules(experiment)
    assert sum(m.size for m in found) == sum(x.size for x in jax.tree.leaves(params))
    assert sum(m.flops for m in found) == whole.total
    assert all(m.parameters or m.flops for m in found)
