"""Updates of a batch's rows alone: equal to dense SGD, and to PyTorch's sparse Adam; on any mesh."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import optim
from jaxmodels.models.dlrm import DLRM
from jaxmodels.models.ncf import NeuMF
from jaxmodels.optim.lazy import adam_rows, lazy, sgd_rows
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.parallel.placement import put_batch
from jaxmodels.parallel.rules import state_shardings
from jaxmodels.step import init, make_step
from jaxmodels.tasks.bpr import bpr
from jaxmodels.tasks.clicks import clicks
from jaxmodels.tasks.gathered import gathered
from jaxmodels.training.lazy_step import lazy_step

ROWS, B = 40, 8
MODEL = DLRM((ROWS, 12), 4, (5,), (6,))
TASK = clicks(MODEL)
LAZY = lazy_step(gathered)


def batch(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "ids": np.stack([random.integers(0, 6, B), random.integers(0, 12, B)], 1).astype(np.int32),
        "numbers": random.normal(size=(B, 2)).astype(np.float32),
        "label": random.integers(0, 2, B).astype(np.float32),
        "weight": np.array([1, 1, 0.5, 1, 0, 1, 1, 1], np.float32),
    }


def trained(make, optimizer, task=TASK, steps: int = 4, batches=batch, **options):
    step = jax.jit(make(task, optimizer, **options))
    state = init(task, optimizer, 0, batches())
    for n in range(steps):
        state, metrics = step(state, batches(n))
    return state, metrics


def close(a, b, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=atol), a, b)


def test_sgd_by_rows_is_dense_sgd_though_rows_come_twice():
    one, metrics = trained(LAZY, lazy(optim.sgd(0.5), sgd_rows(0.5)))
    other, dense = trained(make_step, optim.sgd(0.5))
    assert len({*batch()["ids"][:, 0].tolist()}) < B
    close(one.params, other.params)
    for name in ("loss", "grad_norm", "accuracy"):
        close(metrics[name], dense[name])


def test_so_it_is_where_one_table_is_looked_up_several_times():
    task = bpr(NeuMF(6, 9, 3, (4, 2)))

    def ranked(seed: int = 0):
        random = np.random.default_rng(seed)
        ids = np.stack([random.integers(0, 6, B), random.integers(0, 9, B)], 1)
        return {"ids": ids, "negatives": random.integers(0, 9, (B, 3)), "weight": np.ones(B, np.float32)}

    one, _ = trained(LAZY, lazy(optim.sgd(0.5), sgd_rows(0.5)), task, batches=ranked)
    other, _ = trained(make_step, optim.sgd(0.5), task, batches=ranked)
    close(one.params, other.params)


def test_adam_by_rows_is_pytorchs_sparse_adam():
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    table = random.normal(size=(6, 3)).astype(np.float32)
    weight = torch.nn.Parameter(torch.tensor(table))
    theirs = torch.optim.SparseAdam([weight], lr=0.1)
    rows = adam_rows(0.1)
    own, moments = jnp.asarray(table), rows.init(jnp.asarray(table))
    for n in range(4):
        index = random.permutation(6)[:2]
        gradient = random.normal(size=(2, 3)).astype(np.float32)
        weight.grad = torch.sparse_coo_tensor(
            torch.tensor(index)[None], torch.tensor(gradient), (6, 3), check_invariants=True
        )
        theirs.step()
        part = {name: x[index] for name, x in moments.items()}
        new, part = rows.update(jnp.asarray(gradient), own[index], part, jnp.asarray(n))
        own = own.at[index].set(new)
        moments = {name: x.at[index].set(part[name]) for name, x in moments.items()}
    np.testing.assert_allclose(own, weight.detach().numpy(), atol=1e-5)


def test_rows_that_no_batch_uses_keep_their_bits_and_others_move():
    optimizer = lazy(optim.adam(0.01), adam_rows(0.01))
    before = init(TASK, optimizer, 0, batch()).params["table_0"]["embedding"]
    state, _ = trained(LAZY, optimizer)
    after = state.params["table_0"]["embedding"]
    used = sorted(
        {i for n in range(4) for i, w in zip(batch(n)["ids"][:, 0], batch()["weight"], strict=True) if w}
    )
    moved = np.flatnonzero((np.asarray(before) != np.asarray(after)).any(1))
    assert {*moved.tolist()} == {*used}
    assert not np.asarray(state.opt_state.moments["nu"]["table_0/embedding"])[6:].any()
    assert int(state.opt_state.updates) == 4


def test_a_row_that_padding_alone_looks_up_stays_though_it_has_moments():
    optimizer = lazy(optim.adam(0.01), adam_rows(0.01))
    state, _ = trained(LAZY, optimizer)
    again = {**batch(), "weight": np.zeros(B, np.float32)}
    again["weight"][0], again["ids"][1:, 0] = 1, 1 - min(1, int(again["ids"][0, 0]))
    after, _ = jax.jit(LAZY(TASK, optimizer))(state, again)
    row = int(again["ids"][1, 0])
    before, now = (np.asarray(s.params["table_0"]["embedding"]) for s in (state, after))
    assert np.asarray(state.opt_state.moments["mu"]["table_0/embedding"])[row].any()
    assert (before[row] == now[row]).all() and (before != now).any()


def test_a_loss_that_is_not_finite_reaches_no_row_and_no_moment():
    optimizer = lazy(optim.adam(0.01), adam_rows(0.01))
    state, _ = trained(LAZY, optimizer)
    bad = {**batch(), "numbers": np.full((B, 2), np.nan, np.float32)}
    for on_nan in ("stop", "skip"):
        after, _ = jax.jit(LAZY(TASK, optimizer, on_nan=on_nan))(state, bad)
        close((after.params, after.opt_state), (state.params, state.opt_state), atol=0)
        assert int(after.faults) == 1


@pytest.mark.parametrize(("axes", "mode"), [("data=4,tensor=2", "jit"), ("data=8", "pmap")])
def test_eight_devices_that_split_batch_and_tables_equal_one(axes, mode):
    optimizer = lazy(optim.sgd(0.5), sgd_rows(0.5))
    one, metrics = trained(LAZY, optimizer, steps=1)
    mesh = make_mesh(axes)
    state = init(TASK, optimizer, 0, batch())
    shapes = jax.eval_shape(lambda: state)
    if mode == "jit":
        shardings = state_shardings(shapes, mesh, MODEL.rules())
        assert not shardings.params["table_0"]["embedding"].is_fully_replicated
        state = jax.device_put(state, shardings)
        placed = put_batch(lambda start, stop: {k: x[start:stop] for k, x in batch().items()}, B, mesh)
        several, added = jax.jit(LAZY(TASK, optimizer))(state, placed)
    else:
        parts = jax.tree.map(lambda x: x.reshape(8, 1, *x.shape[1:]), batch())
        step = jax.pmap(LAZY(TASK, optimizer, axis="d"), "d", in_axes=(None, 0))
        several, added = jax.tree.map(lambda x: x[0], step(state, parts))
    close(jax.device_get(several.params), one.params)
    close(jax.device_get(added["grad_norm"]), metrics["grad_norm"])


def test_nothing_of_a_tables_size_is_made_when_the_state_is_donated():
    rows = 200_000
    model = DLRM((rows, 12), 8, (5,), (6,))
    task, optimizer = clicks(model), lazy(optim.adam(0.01), adam_rows(0.01))
    state = jax.eval_shape(lambda: init(task, optimizer, 0, batch()))
    compiled = jax.jit(LAZY(task, optimizer), donate_argnums=0).lower(state, batch()).compile()
    table = rows * 8 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < table / 4
    dense = jax.eval_shape(lambda: init(task, optim.adam(0.01), 0, batch()))
    other = jax.jit(make_step(task, optim.adam(0.01)), donate_argnums=0).lower(dense, batch()).compile()
    assert other.memory_analysis().temp_size_in_bytes > table / 2


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"got tables='nothing', which is found in none of"):
        lazy(optim.sgd(1.0), sgd_rows(1.0), tables="nothing").init({"a": jnp.zeros(1)})
    with pytest.raises(ValueError, match=r"got the optimizer .*; expected one of tables and of the rest"):
        LAZY(TASK, optim.sgd(1.0))
    with pytest.raises(ValueError, match=r"--accumulate: got 2; expected 1"):
        LAZY(TASK, lazy(optim.sgd(1.0), sgd_rows(1.0)), accumulate=2)
    with pytest.raises(ValueError, match=r"got a dense gradient; expected the rows"):
        lazy(optim.sgd(1.0), sgd_rows(1.0)).update({}, ())
