"""Numbers as normal quantiles: as scikit-learn's, with missing values kept."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.data.quantiles import LIMIT, Quantiles

pytestmark = pytest.mark.fast


@pytest.mark.slow
def test_they_are_those_of_scikit_learn():
    preprocessing = pytest.importorskip("sklearn.preprocessing", reason="needs scikit-learn")
    random = np.random.default_rng(0)
    train = np.c_[random.lognormal(0, 2, 400), random.integers(0, 5, 400), random.normal(size=400)]
    new = train[::7] * 1.1 - 0.2
    theirs = preprocessing.QuantileTransformer(n_quantiles=50, output_distribution="normal").fit(train)
    np.testing.assert_allclose(Quantiles.of(train, 50).normal(new), theirs.transform(new), atol=1e-5)


def test_missing_values_stay_missing_and_the_others_do_not_see_them():
    train = np.array([[1.0], [2.0], [3.0], [np.nan]])
    got = Quantiles.of(train, 3).normal(np.array([[np.nan], [2.0], [-1e30], [9.0]]))
    assert (
        np.isnan(got[0, 0]) and abs(got[1, 0]) < 1e-6 and -got[2, 0] == got[3, 0] and 5 < got[3, 0] <= LIMIT
    )


def test_a_column_without_values_is_refused():
    with pytest.raises(ValueError, match="in column 1, 0 finite of 2 values"):
        Quantiles.of(np.array([[1.0, np.nan], [2.0, np.nan]]))
