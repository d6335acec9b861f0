"""What frozen features are worth: a linear probe and nearest neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.scores.probes import linear_probe, nearest_neighbours, nearest_vote, score

pytestmark = pytest.mark.fast

RANDOM = np.random.default_rng(0)


def clouds(n: int, apart: float):
    label = np.arange(n) % 3
    centers = apart * np.eye(3, 6)
    return RANDOM.normal(size=(n, 6)) + centers[label], label


@pytest.mark.slow
@pytest.mark.parametrize("probe", [linear_probe, nearest_neighbours])
def test_probes_find_what_is_there_and_nothing_where_nothing_is(probe):
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    assert probe(*clouds(300, 8.0), *clouds(300, 8.0)) > 0.97
    assert 0.2 < probe(*clouds(300, 0.0), *clouds(300, 0.0)) < 0.47


def test_neighbours_vote_by_cosine_and_not_by_length():
    train = np.array([[10.0, 0], [0, 0.1], [9, 1]])
    assert nearest_neighbours(train, np.array([0, 1, 0]), np.array([[0.1, 5.0]]), np.array([1])) == 1.0


@pytest.mark.slow
def test_only_known_examples_teach():
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    x, label = clouds(200, 8.0)
    known = (np.arange(200) < 120).astype(np.float32)
    wrong = np.where(known > 0, label, (label + 1) % 3)
    right = score(
        [x[:50], x[50:]],
        [{"label": y, "known": k} for y, k in ((label[:50], known[:50]), (label[50:], known[50:]))],
    )
    assert right["probe"] > 0.95 and right["neighbours"] > 0.95
    assert score([x], [{"label": wrong, "known": known}])["probe"] < 0.05


def test_a_plain_vote_is_that_of_scikit_learn():
    from sklearn.neighbors import KNeighborsClassifier

    random = np.random.default_rng(0)
    train_NF, test_NF = random.normal(size=(300, 3)), random.normal(size=(200, 3))
    train_N, test_N = ((x_NF[:, 0] > x_NF[:, 1] ** 2).astype(int) for x_NF in (train_NF, test_NF))
    for neighbors in (1, 10):
        theirs = KNeighborsClassifier(neighbors).fit(train_NF, train_N).score(test_NF, test_N)
        assert nearest_vote(train_NF, train_N, test_NF, test_N, neighbors=neighbors) == theirs
