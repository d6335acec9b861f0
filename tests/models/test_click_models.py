"""Models of users, items and clicks, and their losses, by hand; and on eight devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxmodels.models.deepfm import DeepFM
from jaxmodels.models.dlrm import DLRM
from jaxmodels.models.factorization import FactorizationMachine
from jaxmodels.models.ncf import NeuMF
from jaxmodels.models.two_tower import Tower, TwoTower
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.parallel.rules import state_shardings
from jaxmodels.tasks.bpr import bpr
from jaxmodels.tasks.clicks import clicks, probability
from jaxmodels.tasks.in_batch import in_batch

IDS = np.array([[0, 2, 1], [3, 4, 2], [1, 0, 0]])
NUMBERS = np.array([[0.5, -1.0], [2, 0.3], [0, 1]], np.float32)


def made(model, *inputs, **named):
    return model.init(jax.random.key(0), *inputs, **named)["params"]


def dense(params, x):
    return x @ np.asarray(params["kernel"]) + np.asarray(params["bias"])


def table(params, name):
    return np.asarray(params[name]["embedding"])


def test_neumf_is_a_dense_layer_over_a_product_and_a_perceptron():
    model = NeuMF(4, 5, 3, (8, 4))
    params = made(model, IDS[:, :2])
    user, item = IDS[:, 0], IDS[:, 1]
    product = table(params, "user_product")[user] * table(params, "item_product")[item]
    x = np.concatenate([table(params, "user")[user], table(params, "item")[item]], 1)
    both = np.concatenate([product, np.maximum(dense(params["hidden_0"], x), 0)], 1)
    got = model.apply({"params": params}, IDS[:, :2])
    np.testing.assert_allclose(got, both @ np.asarray(params["head"]["kernel"]), atol=1e-6)
    with pytest.raises(ValueError, match=r"got width=0 and hidden=\(\)"):
        made(NeuMF(4, 5, 0, ()), IDS[:, :2])


def test_dlrm_gives_products_of_all_pairs_to_its_top():
    model = DLRM((4, 5, 3), 4, (6,), (7,))
    params = made(model, IDS, numbers_BN=NUMBERS)
    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    number = relu(dense(params["bottom_1"], relu(dense(params["bottom_0"], NUMBERS))))
    vectors = [number, *(table(params, f"table_{f}")[IDS[:, f]] for f in range(3))]
    pairs = [(vectors[i] * vectors[j]).sum(1) for i in range(4) for j in range(i)]
    x = np.concatenate([number, np.stack(pairs, 1)], 1)
    want = dense(params["head"], relu(dense(params["top_0"], x)))
    np.testing.assert_allclose(model.apply({"params": params}, IDS, None, NUMBERS), want, atol=1e-5)
    assert abs(table(params, "table_1")).max() <= 5**-0.5


def test_deepfm_is_a_factorization_machine_and_a_perceptron_over_the_same_vectors():
    model = DeepFM((4, 5, 3), 3, (6,))
    params = made(model, IDS)
    linear = 0.1 * np.arange(12, dtype=np.float32)[:, None]
    params = {**params, "linear": {"embedding": linear}}
    machine = {"factors": params["factors"], "linear": params["linear"], "offset": jnp.zeros(())}
    shallow = FactorizationMachine((4, 5, 3), 3).apply({"params": machine}, IDS)
    x = table(params, "factors")[IDS + np.array([0, 4, 9])].reshape(3, -1)
    deep = dense(params["head"], np.maximum(dense(params["hidden_0"], x), 0))
    np.testing.assert_allclose(model.apply({"params": params}, IDS), shallow + deep, atol=1e-5)
    with_numbers = made(model, IDS, numbers_BN=NUMBERS)
    zero = model.apply({"params": with_numbers}, IDS, None, 0 * NUMBERS)
    assert float(abs(model.apply({"params": with_numbers}, IDS, None, NUMBERS) - zero).max()) > 1e-4


def test_clicks_are_binary_cross_entropy_of_real_rows():
    task = clicks(NeuMF(4, 5, 3, (8, 4)))
    batch = {"ids": IDS[:, :2], "label": np.array([1, 0, np.nan]), "weight": np.array([1.0, 1, 0])}
    params, _ = task.init(jax.random.key(0), batch)
    metrics = task.evaluate(params, {}, batch)
    p = np.asarray(probability(NeuMF(4, 5, 3, (8, 4)))(params, {}, batch))
    assert float(metrics["loss"].total) == pytest.approx(-np.log(p[0]) - np.log(1 - p[1]), rel=1e-5)
    assert float(metrics["accuracy"].total) == int(p[0] > 0.5) + int(p[1] <= 0.5)


def test_bpr_is_the_log_of_the_chance_that_the_item_beats_its_negatives():
    model = NeuMF(4, 5, 3, ())
    batch = {"ids": IDS[:, :2], "negatives": np.array([[0, 1], [2, 3], [3, 4]]), "weight": np.ones(3)}
    task = bpr(model)
    params, _ = task.init(jax.random.key(0), batch)
    score = lambda u, i: float(model.apply({"params": params}, np.array([[u, i]]))[0, 0])  # noqa: E731
    margins = [
        [score(u, i) - score(u, j) for j in row]
        for (u, i), row in zip(batch["ids"], batch["negatives"], strict=True)
    ]
    got = task.evaluate(params, {}, batch)
    assert float(got["loss"].total) == pytest.approx(
        np.log1p(np.exp(-np.array(margins))).mean(1).sum(), rel=1e-5
    )
    assert float(got["above"].total) == pytest.approx((np.array(margins) > 0).mean(1).sum())


def test_bpr_checks_negatives_that_are_in_the_data_and_waits_for_those_drawn_later():
    model = NeuMF(4, 5, 3, ())
    batch = {"ids": IDS[:, :2], "negatives": np.array([[0, 5]] * 3), "weight": np.ones(3)}
    variables = jax.eval_shape(bpr(model).init, jax.random.key(0), batch)
    assert bpr(model).requires(batch, *variables)["negatives"].wrong(batch).tolist() == [[False, True]] * 3
    drawn_later = {name: x for name, x in batch.items() if name != "negatives"}
    assert {*bpr(model).requires(drawn_later, *variables)} == {"ids", "weight"}


def towers():
    return TwoTower(Tower(16, 4, (6, 5)), Tower(8, 4), temperature=0.5)


def retrieved(B: int = 16):
    random = np.random.default_rng(0)
    item = random.integers(0, 8, B)
    return {
        "user": np.arange(B),
        "item": item,
        "log_frequency": np.log(np.bincount(item, minlength=8)[item] / B).astype(np.float32),
        "weight": np.array([1.0] * (B - 3) + [0, 1, 1], np.float32),
    }


def test_in_batch_softmax_subtracts_the_log_of_frequencies_and_skips_own_items_and_padding():
    batch, task = retrieved(), in_batch(towers())
    params, _ = task.init(jax.random.key(0), batch)
    user, item = map(np.asarray, towers().apply({"params": params}, batch["user"], batch["item"]))
    np.testing.assert_allclose(np.linalg.norm(item, axis=1), 1, rtol=1e-5)
    total = 0.0
    for i in range(16):
        if not batch["weight"][i]:
            continue
        kept = [
            j
            for j in range(16)
            if j == i or (batch["item"][j] != batch["item"][i] and batch["weight"][j] > 0)
        ]
        scores = np.array([user[i] @ item[j] - batch["log_frequency"][j] for j in kept])
        total += np.log(np.exp(scores).sum()) - scores[kept.index(i)]
    mean, _, _ = task.loss(params, {}, batch, jax.random.split(jax.random.key(0), 16))
    assert float(mean.total) == pytest.approx(total, rel=1e-5) and float(mean.weight) == 15


@pytest.mark.parametrize("axes", ["data=8", "data=2,tensor=4"])
def test_eight_devices_that_split_batch_and_tables_have_the_loss_and_gradient_of_one(axes):
    batch, task, model = retrieved(), in_batch(towers()), towers()
    params, _ = task.init(jax.random.key(0), batch)
    keys_B = jax.random.split(jax.random.key(0), 16)
    fn = jax.jit(jax.value_and_grad(lambda params, batch: task.loss(params, {}, batch, keys_B)[0].total))
    value, gradient = fn(params, batch)
    mesh = make_mesh(axes)
    placed = jax.device_put({"params": params}, state_shardings({"params": params}, mesh, model.rules()))
    split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    assert placed["params"]["item"]["embed"]["embedding"].sharding.is_fully_replicated == (
        "tensor" not in axes
    )
    several, gradients = fn(placed["params"], split)
    assert float(several) == pytest.approx(float(value), rel=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), gradients, gradient)
