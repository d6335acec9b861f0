from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from jaxmodels.sweeps.statistics import LEVEL, POWER, compare, enough_seeds, holm, power, settings, verdict

pytestmark = pytest.mark.fast


def members(values: dict[float, list[float]], **more):
    return [
        {"knobs": {"lr": lr, "seed": seed}, "exit": "complete", "metrics": {"acc": x}, **more}
        for lr, of in values.items()
        for seed, x in enumerate(of)
    ]


def test_means_and_intervals_are_students():
    x = [0.9, 0.92, 0.91, 0.95]
    [one] = settings(members({0.1: x}), "seed", "acc")
    low, high = stats.t.interval(0.95, 3, loc=np.mean(x), scale=stats.sem(x))
    assert one.mean == pytest.approx(np.mean(x))
    assert one.interval == pytest.approx((high - low) / 2)


def test_one_seed_has_no_interval_and_the_verdict_asks_for_more():
    found = settings(members({0.1: [0.9], 0.2: [0.8]}), "seed", "acc")
    assert found[0].interval is None
    assert "--seed 0..4" in verdict(*compare(found, "max"))


def test_the_best_is_compared_with_every_other_over_common_seeds():
    a, b = [0.90, 0.91, 0.93, 0.92], [0.80, 0.83, 0.82, 0.84]
    reference, [other] = compare(settings(members({0.1: a, 0.2: b}), "seed", "acc"), "max")
    assert reference is not None and reference.knobs == {"lr": 0.1}
    assert other.p == pytest.approx(stats.ttest_rel(b, a).pvalue)
    assert other.difference == pytest.approx(np.mean(b) - np.mean(a))
    lowest, _ = compare(settings(members({0.1: a, 0.2: b}), "seed", "acc"), "min")
    assert lowest is not None and lowest.knobs == {"lr": 0.2}


def test_holm_multiplies_the_smallest_most_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]


def test_too_few_seeds_are_said_with_how_many_would_do():
    a, b = [0.90, 0.95, 0.91, 0.94], [0.94, 0.90, 0.93, 0.91]
    reference, compared = compare(settings(members({0.1: a, 0.2: b}), "seed", "acc"), "max")
    assert "1 of 1 other settings cannot be told from the best with 4 seeds" in verdict(reference, compared)
    assert compared[0].enough is not None and compared[0].enough > 4


def test_with_as_many_seeds_as_it_asks_for_a_difference_shows_mostly():
    random, shown = np.random.default_rng(0), 0
    differences = 0.01 + 0.02 * random.normal(size=400)
    n = enough_seeds(differences, 1)
    for _ in range(300):
        x = 0.01 + 0.02 * random.normal(size=n)
        shown += stats.ttest_1samp(x, 0).pvalue < LEVEL
    assert abs(shown / 300 - POWER) < 0.1


def needed(effect, level):
    """By the noncentral t distribution."""
    for n in range(2, 10_000):
        t, shift = stats.t.ppf(1 - level / 2, n - 1), effect * n**0.5
        if stats.nct.sf(t, n - 1, shift) >= 0.8:  # the other side adds less than a millionth
            return n
    raise AssertionError


@pytest.mark.parametrize("tests", [1, 3, 20])
@pytest.mark.parametrize("effect", [0.1, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0])
def test_as_many_seeds_are_advised_as_the_t_test_needs(effect, tests):
    x = np.array([-1.0, 1.0]) / 2**0.5  # of standard deviation 1
    assert enough_seeds(x + effect, tests) == needed(effect, LEVEL / tests)


def test_four_seeds_are_advised_where_normal_quantiles_would_say_three():
    assert power(2.2, 3, 0.05) < 0.8 <= power(2.2, 4, 0.05)
    assert enough_seeds(np.array([-1.0, 1.0]) / 2**0.5 + 2.2, 1) == 4


def test_members_that_diverged_are_counted_and_left_out():
    rows = members({0.1: [0.9, 0.8]})
    rows[1] = {**rows[1], "exit": "NotFinite: step 3"}
    [one] = settings(rows, "seed", "acc")
    assert (one.diverged, one.mean) == (1, 0.9)
    assert verdict(*compare(settings([rows[1]], "seed", "acc"), "max")) == "no member has a finite result"
