"""Factorizations by hand: sums over pairs, attributes of items, penalties, and ids that do not exist."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.models.factorization import FactorizationMachine, MatrixFactorization
from jaxmodels.tasks.penalty import penalised
from jaxmodels.tasks.regress import regress

IDS = jnp.array([[0, 2, 1, 0], [3, 4, 2, 1]])


def rating(model, **by):
    return penalised(regress(model, inputs="ids"), model, **by)


def randomly(model, *inputs):
    params = model.init(jax.random.key(0), *inputs)["params"]
    leaves, tree = jax.tree.flatten(params)
    return jax.tree.unflatten(
        tree, [0.5 * jax.random.normal(jax.random.key(i), x.shape) for i, x in enumerate(leaves)]
    )


def test_a_rating_is_mean_biases_and_product_with_what_attributes_add():
    model = MatrixFactorization(4, 5, 3, attributes=2, mean=3.0)
    params = randomly(model, IDS)
    t = {name: np.asarray(x["embedding"]) for name, x in params.items() if name != "offset"}
    got = model.apply({"params": params}, IDS)[:, 0]
    for row, (user, item, *attributes) in zip(got, IDS.tolist(), strict=True):
        real = [a for a in attributes if a]
        q = t["item"][item] + t["attribute"][real].sum(0) / len(real) ** 0.5
        bias = t["item_bias"][item] + t["attribute_bias"][real].sum(0) / len(real) ** 0.5
        want = 3 + params["offset"] + t["user_bias"][user][0] + bias[0] + t["user"][user] @ q
        assert float(row) == pytest.approx(float(want), rel=1e-5)


def test_ratings_are_clipped_outside_of_training_alone():
    model = MatrixFactorization(4, 5, 3, mean=9.0, bounds=(0.5, 5.0))
    params = model.init(jax.random.key(0), IDS[:, :2])["params"]
    assert model.apply({"params": params}, IDS[:, :2]).max() == 5
    keys_B = jax.random.split(jax.random.key(0), 2)
    assert model.apply({"params": params}, IDS[:, :2], keys_B).min() > 8


def test_a_factorization_machine_sums_all_pairs():
    model = FactorizationMachine((4, 5, 3), 3, mean=1.0)
    ids, x = jnp.array([[0, 2, 1], [3, 4, 2]]), jnp.array([[1, 0.5, 2.0], [1, 1, 0]])
    params = randomly(model, ids)
    factors, linear = (np.asarray(params[name]["embedding"]) for name in ("factors", "linear"))
    for numbers in (None, x):
        got = model.apply({"params": params}, ids, None, numbers)[:, 0]
        for b in range(2):
            rows = np.asarray(ids[b]) + np.array([0, 4, 9])
            n = np.ones(3) if numbers is None else np.asarray(x[b])
            want = 1 + float(params["offset"]) + linear[rows, 0] @ n
            for f, g in itertools.combinations(range(3), 2):
                want += factors[rows[f]] @ factors[rows[g]] * n[f] * n[g]
            assert float(got[b]) == pytest.approx(want, rel=1e-4)


def test_the_loss_adds_a_penalty_for_each_rating_and_metrics_leave_it_out():
    model = MatrixFactorization(4, 5, 3, attributes=2)
    params = randomly(model, IDS)
    batch = {"ids": IDS, "target": jnp.array([3.0, 4.0]), "weight": jnp.array([1.0, 0.0])}
    keys_B = jax.random.split(jax.random.key(0), 2)
    mean, _, metrics = rating(model, factors=0.1, biases=0.2, attributes=0.3).loss(params, {}, batch, keys_B)
    t = {name: np.asarray(x["embedding"]) ** 2 for name, x in params.items() if name != "offset"}
    want = 0.1 * (t["user"][0].sum() + t["item"][2].sum()) + 0.2 * (t["user_bias"][0] + t["item_bias"][2])
    want += 0.3 * (t["attribute"][1].sum() + t["attribute_bias"][1])
    assert float(mean.total - metrics["loss"].total) == pytest.approx(float(want[0]), rel=1e-5)


def test_ids_that_the_model_does_not_have_are_refused_where_they_count():
    task = rating(MatrixFactorization(4, 5, 3, attributes=2))
    batch = {"ids": np.array([[4, 0, 0, 0], [0, 9, 0, 0]]), "target": np.ones(2), "weight": np.ones(2)}
    requirement = task.requires(batch, *jax.eval_shape(task.init, jax.random.key(0), batch))["ids"]
    assert (
        requirement.what == "indices from 0 below the model's 4 users, 5 items, 3 in column 2, 3 in column 3"
    )
    assert requirement.wrong(batch).tolist() == [[True, False, False, False], [False, True, False, False]]
