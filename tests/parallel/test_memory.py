"""Options that trade time for memory change where things lie and what is computed twice, and no result."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from parallel.cases import BY_NAME, B

from jaxmodels import Experiment, Options, optim
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.parallel.compile import compile_step
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.parallel.placement import replicated
from jaxmodels.step import init, make_step
from jaxmodels.training import runner
from jaxmodels.training.check import check

CASE = BY_NAME["gpt"]


def experiment() -> Experiment:
    train = ArrayPipeline(lambda: CASE.batch, batch=B, seed=0)
    return Experiment(task=CASE.task, optimizer=optim.adam(1e-2), train=train, steps=3, rules=CASE.rules)


def trained(**options):
    return runner.run(experiment(), Options(mesh="fsdp=2", **options)).state


def temporaries(remat: str) -> int:
    """Bytes, for a batch that outweighs the parameters."""
    mesh = make_mesh("data=1")
    task, optimizer = CASE.task, optim.sgd(0.1)
    state = jax.eval_shape(lambda: init(task, optimizer, 0, CASE.batch))
    placed = jax.tree.map(lambda _: replicated(mesh), state)
    batch = {name: jax.ShapeDtypeStruct((64, *x.shape[1:]), x.dtype) for name, x in CASE.batch.items()}
    step = make_step(task, optimizer)
    jitted = compile_step(lambda s, _, b: step(s, b), "jit", mesh, placed, leading=0, remat=remat)
    return jitted.lower(state, {}, batch).compile().memory_analysis().temp_size_in_bytes


def test_an_optimizer_in_the_hosts_memory_learns_the_same():
    plain, hosted = trained(), trained(offload="optimizer")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), plain.params, hosted.params
    )
    assert {x.sharding.memory_kind for x in jax.tree.leaves(hosted.opt_state)} == {"pinned_host"}
    assert {x.sharding.memory_kind for x in jax.tree.leaves(hosted.params)} == {"device"}


def test_rematerialisation_by_option_takes_less_memory_and_learns_the_same():
    kept, again = temporaries("none"), temporaries("full")
    assert again < 0.8 * kept
    plain, full = trained(remat="none"), trained(remat="full")
    apart = jax.tree.map(lambda a, b: float(np.abs(a - b).mean()), plain.params, full.params)
    assert (
        max(jax.tree.leaves(apart)) < 1e-6
    )  # one by one they may differ more: Adam divides gradients near 0 by themselves


@pytest.mark.fast
def test_pmap_has_one_memory():
    with pytest.raises(
        ValueError, match="--offload optimizer: got --compile pmap, which places whole arrays on the device"
    ):
        check(experiment(), Options(mesh="data=2", compile="pmap", offload="optimizer"))
