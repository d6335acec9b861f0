"""SASRec by properties of its paper: causal, blind to padding, and its loss by hand."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxmodels.models.sasrec import SASRec
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.parallel.rules import state_shardings
from jaxmodels.tasks.next_item import next_item, next_item_softmax, scores_of_items

V, T = 9, 6
MODEL = SASRec(V, T, width=8, heads=2, dropout=0.0)
ACTIONS = jnp.array([[0, 0, 3, 1, 4, 2], [0, 0, 0, 5, 5, 9]])
PARAMS = MODEL.init(jax.random.key(0), ACTIONS)["params"]


def states(actions, **changes):
    return MODEL.clone(**changes).apply({"params": PARAMS}, actions)


def test_a_state_sees_no_later_action():
    changed = ACTIONS.at[0, 4:].set(jnp.array([7, 8]))
    np.testing.assert_allclose(states(changed)[0, :4], states(ACTIONS)[0, :4], atol=1e-6)
    assert float(abs(states(changed)[0, 4:] - states(ACTIONS)[0, 4:]).max()) > 1e-3


def test_padding_before_the_first_action_changes_nothing():
    np.testing.assert_allclose(states(ACTIONS[:, 2:]), states(ACTIONS)[:, 2:], atol=1e-6)


def test_users_packed_into_a_row_do_not_see_each_other():
    row, users = jnp.array([[3, 1, 4, 2, 5, 5]]), jnp.array([[1, 1, 1, 1, 2, 2]])
    packed = MODEL.apply({"params": PARAMS}, row, None, users)
    np.testing.assert_allclose(packed[0, :4], states(row[:, :4])[0], atol=1e-6)
    np.testing.assert_allclose(packed[0, 4:], states(row[:, 4:])[0], atol=1e-6)
    shorter = MODEL.apply({"params": PARAMS}, row.at[:, 4:].set(0), None, users.at[:, 4:].set(0))
    np.testing.assert_allclose(packed[0, :4], shorter[0, :4], atol=1e-6)


def test_scores_are_products_with_the_table_of_items():
    x, table = states(ACTIONS)[:, -1], PARAMS["embed"]["embedding"][1:]
    np.testing.assert_allclose(
        scores_of_items(MODEL)(PARAMS, {}, {"inputs": ACTIONS}), x @ table.T, atol=1e-5
    )


def batch():
    targets = jnp.array([[0, 0, 1, 4, 2, 6], [0, 0, 0, 5, 9, 1]])
    return {"inputs": ACTIONS, "targets": targets, "weight": (targets > 0).astype(jnp.float32)}


def test_the_drawn_item_is_none_of_the_users_and_the_loss_is_that_of_the_paper(monkeypatch):
    drawn = []
    vectors = SASRec.item_vectors

    def noted(self, items):
        drawn.append(np.asarray(items))
        return vectors(self, items)

    monkeypatch.setattr(SASRec, "item_vectors", noted)
    keys_B = jax.random.split(jax.random.key(1), 2)
    mean, _, _ = next_item(MODEL).loss(PARAMS, {}, batch(), keys_B)
    negative = drawn[1]
    own = [{*ACTIONS[b].tolist(), *batch()["targets"][b].tolist()} for b in range(2)]
    assert all(int(n) not in own[b] and 1 <= n <= V for b in range(2) for n in negative[b])
    x, table = states(ACTIONS), PARAMS["embed"]["embedding"]
    r = [(x * table[np.asarray(items)]).sum(-1) for items in (batch()["targets"], negative)]
    terms = -jnp.log(jax.nn.sigmoid(r[0])) - jnp.log(1 - jax.nn.sigmoid(r[1]))
    assert float(mean.total) == pytest.approx(float((terms * batch()["weight"]).sum()), rel=1e-5)


def test_sampled_softmax_nears_the_softmax_over_all_items_also_where_popular_items_are_drawn_more():
    scores = states(ACTIONS) @ PARAMS["embed"]["embedding"][1:].T * 1.0
    target = jnp.maximum(batch()["targets"] - 1, 0)
    exact = jax.nn.logsumexp(scores, -1) - jnp.take_along_axis(scores, target[..., None], -1)[..., 0]
    want = float((exact * batch()["weight"]).sum())
    for popularity in (None, np.arange(V) + 1.0):
        task = next_item_softmax(MODEL, negatives=4000, popularity_V=popularity)
        mean, _, _ = task.loss(PARAMS, {}, batch(), jax.random.split(jax.random.key(2), 2))
        # The target is counted by itself, the others by their draws: within the noise of 4,000.
        assert float(mean.total) == pytest.approx(want, rel=0.03)


@pytest.mark.parametrize(
    "make", [next_item, partial(next_item_softmax, negatives=5)], ids=["binary", "softmax"]
)
def test_eight_devices_that_split_batch_or_table_draw_and_learn_what_one_does(make):
    task, model = make(MODEL.clone(items=15)), MODEL.clone(items=15)
    of_eight = {name: jnp.tile(x, (4, 1)) for name, x in batch().items()}
    params = model.init(jax.random.key(0), ACTIONS)["params"]
    keys_B = jax.random.split(jax.random.key(1), 8)
    fn = jax.jit(jax.value_and_grad(lambda p, batch, keys: task.loss(p, {}, batch, keys)[0].total))
    value, gradient = fn(params, of_eight, keys_B)
    for axes in ("data=8", "data=2,tensor=4"):
        mesh = make_mesh(axes)
        placed = jax.device_put({"params": params}, state_shardings({"params": params}, mesh, model.rules()))
        split = jax.device_put((of_eight, keys_B), NamedSharding(mesh, PartitionSpec("data")))
        several, gradients = fn(placed["params"], *split)
        assert float(several) == pytest.approx(float(value), rel=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradients, gradient)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"got 7 actions; expected at most 6"):
        MODEL.init(jax.random.key(0), jnp.ones((1, 7), jnp.int32))
    with pytest.raises(ValueError, match=r"got width 8 and 3 heads"):
        SASRec(V, T, width=8, heads=3).init(jax.random.key(0), ACTIONS)
    with pytest.raises(ValueError, match=r"got popularity_V of shape \(2,\); expected 9 numbers"):
        next_item_softmax(MODEL, negatives=2, popularity_V=np.ones(2))
