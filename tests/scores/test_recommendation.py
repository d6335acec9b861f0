"""Scores of recommendations by hand, against scikit-learn, and as means over all orders of ties."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.scores import neighbors, recommendation
from jaxmodels.scores.recommendation import one_relevant, several_relevant
from jaxmodels.tasks.ranking import placed
from jaxmodels.tasks.recommend import placed_target

pytestmark = pytest.mark.fast


def test_errors_of_ratings_are_those_of_a_hand_count():
    assert recommendation.rmse([3, 4, 1], [4, 4, 3]) == pytest.approx((5 / 3) ** 0.5)
    assert recommendation.mae([3, 4, 1], [4, 4, 3]) == pytest.approx(1)
    with pytest.raises(ValueError, match="expected one for each"):
        recommendation.rmse([1, 2], [1])


def test_one_relevant_item_at_the_second_third_and_twelfth_place():
    got = one_relevant([1, 2, 11], [1, 1, 1], k=10)
    assert got == {
        "hr@10": pytest.approx(2 / 3),
        "ndcg@10": pytest.approx((1 / np.log2(3) + 1 / 2) / 3),
        "mrr": pytest.approx((1 / 2 + 1 / 3 + 1 / 12) / 3),
    }


def test_names_of_sampled_scores_say_so_and_counts_are_checked():
    assert {*one_relevant([0], [1], k=5, prefix="sampled_")} == {
        "sampled_hr@5",
        "sampled_ndcg@5",
        "sampled_mrr",
    }
    with pytest.raises(ValueError, match="at least 0 higher and 1 equal"):
        one_relevant([0], [0])


def in_order(relevant, k):
    """The five scores of a ranking without ties, by their definitions."""
    hits = [i for i, yes in enumerate(relevant) if yes]
    top = [i for i in hits if i < k]
    ideal = sum(1 / np.log2(i + 2) for i in range(min(len(hits), k)))
    return {
        f"hr@{k}": float(bool(top)),
        f"recall@{k}": len(top) / len(hits),
        f"ndcg@{k}": sum(1 / np.log2(i + 2) for i in top) / ideal,
        f"map@{k}": sum((hits.index(i) + 1) / (i + 1) for i in top) / min(len(hits), k),
        "mrr": 1 / (hits[0] + 1),
    }


rankings = st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=5)


@given(rankings.filter(lambda rows: any(yes for _, yes in rows)), st.integers(1, 4))
def test_ties_count_as_the_mean_over_all_their_orders(rows, k):
    score, relevant = map(np.array, zip(*rows, strict=True))
    orders = [
        order
        for order in itertools.permutations(range(len(rows)))
        if all(score[a] >= score[b] for a, b in itertools.pairwise(order))
    ]
    each = [in_order(relevant[list(order)], k) for order in orders]
    want = {name: np.mean([one[name] for one in each]) for name in each[0]}
    assert several_relevant(score[None], relevant[None], k=k) == pytest.approx(want)
    if relevant.sum() == 1:
        own = score[relevant.argmax()]
        got = one_relevant([(score > own).sum()], [(score == own).sum()], k=k)
        assert got == pytest.approx({name: want[name] for name in got})


def test_gain_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    score, relevant = random.integers(0, 6, (20, 12)).astype(float), random.random((20, 12)) < 0.3
    relevant[:, 0] = True
    for k in (1, 5, 12):
        want = metrics.ndcg_score(relevant, score, k=k)
        assert several_relevant(score, relevant, k=k)[f"ndcg@{k}"] == pytest.approx(want)
    clear = random.random((20, 12))
    precision = [metrics.average_precision_score(*rows) for rows in zip(relevant, clear, strict=True)]
    assert several_relevant(clear, relevant, k=12)["map@12"] == pytest.approx(np.mean(precision))


def test_what_may_not_be_recommended_takes_no_place_and_users_without_items_do_not_count():
    score, relevant = np.array([[3.0, 2, 1], [1, 2, 3]]), np.array([[False, True, False], [False] * 3])
    got = several_relevant(score, relevant, k=1, candidate_BV=np.array([[False, True, True]] * 2))
    assert got["hr@1"] == 1 and several_relevant(score, relevant, k=1)["hr@1"] == 0
    with pytest.raises(ValueError, match="1 of them nan"):
        several_relevant(np.array([[np.nan, 1]]), np.array([[True, False]]))


def test_coverage_and_popularity_are_those_of_a_hand_count():
    lists = np.array([[0, 1], [0, 3]])
    assert recommendation.coverage(lists, 6) == 0.5
    assert recommendation.mean_popularity(lists, np.array([9, 2, 7, 4])) == 6


def test_an_item_is_placed_among_those_that_the_user_has_not_seen():
    scores = jnp.array([[5.0, 3, 3, 1, 9], [0, jnp.nan, 2, 2, 1]])
    batch = {
        "scores": scores,
        "target": jnp.array([1, 0]),
        "seen": jnp.array([[4, -1], [2, 3]]),
        "negatives": jnp.array([[3, 2, 2], [3, 4, 4]]),
    }
    got = placed_target(lambda params, extra, batch: batch["scores"], top=3)({}, {}, batch)
    assert got["higher"].tolist() == [1, 2] and got["equal"].tolist() == [2, 1]  # with a nan: last
    assert got["sampled_higher"].tolist() == [0, 3] and got["sampled_equal"].tolist() == [3, 1]
    assert got["top"][0].tolist() == [0, 1, 2]
    host = neighbors.placed(
        lambda user: np.asarray(scores[:1]),
        {k: np.asarray(x[:1]) for k, x in batch.items() if k != "scores"} | {"user": np.array([0])},
    )
    assert all(host[name].tolist() == got[name][:1].tolist() for name in host)


def test_a_row_that_is_not_a_number_is_placed_last():
    higher, equal = placed(jnp.array([[1.0, 2.0]]), jnp.array([jnp.nan]))
    assert (higher.tolist(), equal.tolist()) == ([2], [0])


USER, ITEM = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 2, 1])


def test_neighbors_of_items_are_summed_cosines():
    x = np.zeros((3, 3))
    x[USER, ITEM] = 1
    unit = x / np.linalg.norm(x, axis=0)
    cosine = unit.T @ unit
    np.fill_diagonal(cosine, 0)
    score = neighbors.item_knn(USER, ITEM, 3, 3)(np.arange(3))
    np.testing.assert_allclose(score, x @ cosine, atol=1e-6)
    assert neighbors.popular(ITEM, 3)(np.array([2])).tolist() == [[2, 2, 1]]


def test_biases_solve_the_penalised_least_squares():
    rating = np.array([5.0, 3, 4, 1, 2])
    predict = neighbors.biases(USER, ITEM, rating, 3, 3, user_penalty=2, item_penalty=3, passes=200)
    design = np.zeros((5, 6))
    design[np.arange(5), USER], design[np.arange(5), 3 + ITEM] = 1, 1
    penalty = np.diag([2.0] * 3 + [3] * 3)
    b = np.linalg.solve(design.T @ design + penalty, design.T @ (rating - 3))
    np.testing.assert_allclose(predict(USER, ITEM), 3 + design @ b, atol=1e-6)


def test_neighbors_of_ratings_move_a_prediction_towards_similar_items():
    random = np.random.default_rng(0)
    user, item = (x.reshape(-1) for x in np.meshgrid(np.arange(30), np.arange(4), indexing="ij"))
    taste = random.choice([-1.0, 1.0], 30)
    rating = 3 + taste[user] * np.array([1, 1, -1, -1])[item] + 0.1 * random.normal(size=120)
    kept = np.arange(120) % 7 > 0
    predict = neighbors.rating_knn(user[kept], item[kept], rating[kept], 30, 4, shrink=1.0)
    base = neighbors.biases(user[kept], item[kept], rating[kept], 30, 4)
    held = ~kept
    error = [np.abs(f(user[held], item[held]) - rating[held]).mean() for f in (predict, base)]
    assert error[0] < 0.4 * error[1]
