"""Statistics of settings over seeds: means with intervals, and paired tests against the best one.

A setting is its knobs without the seed. The interval is Student's, 95%. Tests are paired t-tests over the
seeds that both settings have, corrected for their number by Holm (doi:10.2307/4615733).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.05  # of the tests, all together
STOPPED = re.compile(r"stopped at step ([\d,]+)")  # the exit of a member that halving has ended
# Words in the names of metrics that should be small.
LOWER = ("loss", "error", "perplexity", "bits", "mse", "mae", "distance", "rate")
MANY = 100_000  # seeds beyond which none are counted
POWER = 0.8  # chance to tell settings apart that differ as much as these seem to


class Setting(NamedTuple):
    """A setting and its metric. values: by seed, without diverged members. interval: half its width.

    stopped: the step at which halving ended it; its values are of that step. interval is None for one seed.
    """

    knobs: dict[str, Any]
    values: dict[Any, float]
    diverged: int
    stopped: int | None
    mean: float
    interval: float | None


class Comparison(NamedTuple):
    """A setting against the reference, over common seeds.

    p: corrected by Holm; None for fewer than two seeds. enough: seeds that would show the difference.
    """

    knobs: dict[str, Any]
    difference: float
    p: float | None
    enough: int | None


def goal_of(metric: str) -> str:
    """Whether a metric should be large, "max", or small, "min", by its name."""
    return "min" if any(word in metric.rpartition("/")[2] for word in LOWER) else "max"


def check_metric(metric: str, names: Iterable[str]) -> None:
    """Raises where there are metrics, and this is none of them."""
    if (known := sorted(names)) and metric not in known:
        raise ValueError(
            f"--metric: got {metric}; expected a metric of the evaluations. Give one of {', '.join(known)}"
        )


def member_score(metrics: Mapping[str, float], diverged: int | None, metric: str, goal: str) -> float:
    """A member's score, more is better; minus infinity where it diverged or has no finite value."""
    check_metric(metric, metrics)
    value = metrics.get(metric)
    if diverged is not None or value is None or not math.isfinite(value):
        return -math.inf
    return value if goal == "max" else -value


def settings(members: Sequence[Mapping[str, Any]], seed: str, metric: str) -> list[Setting]:
    """The settings, in the order of their first members.

    members: each with knobs, metrics and exit. seed: the name of the repeated knob.
    """
    by_setting: dict[str, list[Mapping[str, Any]]] = {}
    for member in members:
        by_setting.setdefault(repr(_without(member["knobs"], seed)), []).append(member)
    return [_setting(group, seed, metric) for group in by_setting.values()]


def _without(knobs: Mapping[str, Any], seed: str) -> dict[str, Any]:
    return {name: value for name, value in knobs.items() if name != seed}


def _setting(members: Sequence[Mapping[str, Any]], seed: str, metric: str) -> Setting:
    """The setting of these members, which differ in their seeds alone."""
    values: dict[Any, float] = {}
    diverged, stops = 0, []
    for member in members:
        value = member["metrics"].get(metric)
        stopped = STOPPED.fullmatch(member["exit"])
        if stopped:
            stops.append(int(stopped[1].replace(",", "")))
        if (member["exit"] != "complete" and not stopped) or value is None or not math.isfinite(value):
            diverged += 1
        else:
            values[member["knobs"].get(seed)] = value
    x, n = np.asarray(list(values.values())), len(values)
    half = float(stats.t.ppf(0.975, n - 1) * x.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    mean = float(x.mean()) if n else math.nan
    knobs = _without(members[0]["knobs"], seed)
    return Setting(knobs, values, diverged, max(stops, default=None), mean, half)


def compare(
    every: Sequence[Setting], goal: str, reference: Setting | None = None
) -> tuple[Setting | None, list[Comparison]]:
    """(the reference, by default the best mean; every other setting against it)."""
    usable = [s for s in every if s.values and s.stopped is None]
    if not usable:
        return None, []
    better = max if goal == "max" else min
    reference = reference or better(usable, key=lambda s: s.mean)
    others = [s for s in usable if s is not reference]
    tests = [_paired_test(s, reference) for s in others]
    corrected = holm([p for _, p, _ in tests])
    comparisons = []
    for s, (difference, _, differences), p in zip(others, tests, corrected, strict=True):
        comparisons.append(Comparison(s.knobs, difference, p, enough_seeds(differences, len(others))))
    return reference, comparisons


def _paired_test(setting: Setting, reference: Setting) -> tuple[float, float | None, np.ndarray]:
    """(mean difference, p of the paired t-test, differences by common seed)."""
    common = [seed for seed in setting.values if seed in reference.values]
    differences = np.asarray([setting.values[s] - reference.values[s] for s in common])
    if len(common) < 2:
        return setting.mean - reference.mean, None, differences
    if np.ptp(differences) == 0:
        return float(differences.mean()), 0.0 if differences[0] else 1.0, differences
    return float(differences.mean()), float(stats.ttest_1samp(differences, 0.0).pvalue), differences


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's correction: the smallest p times their number, the next times one less, never below the last."""
    known = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        corrected[i] = highest
    return corrected


def enough_seeds(differences: np.ndarray, tests: int) -> int | None:
    """Seeds that show the observed difference with the chance POWER at the level LEVEL / tests."""
    if len(differences) < 2 or differences.mean() == 0:
        return None
    if (spread := differences.std(ddof=1)) == 0:
        return 2
    effect, level = abs(differences.mean()) / spread, LEVEL / tests
    z = stats.norm.ppf(1 - level / 2) + stats.norm.ppf(POWER)
    n = max(2, math.floor(min((z / effect) ** 2, MANY)))  # enough for a known spread: a lower bound
    while n < MANY and power(effect, n, level) < POWER:
        n += 1
    return n


def power(effect: float, n: int, level: float) -> float:
    """The power of a two-sided one-sample t-test of n values, for a mean of `effect` standard deviations.

    The power of a normal test, averaged over the distribution of the estimated spread, which is that of the
    noncentral t.
    """
    critical = stats.t.ppf(1 - level / 2, n - 1)
    spread = np.sqrt(stats.chi2.ppf((np.arange(2000) + 0.5) / 2000, n - 1) / (n - 1))
    shift = effect * math.sqrt(n)
    return float(
        np.mean(stats.norm.cdf(shift - critical * spread) + stats.norm.cdf(-shift - critical * spread))
    )


def verdict(reference: Setting | None, compared: Sequence[Comparison]) -> str:
    """A conclusion from the tests, in a sentence or two."""
    if reference is None:
        return "no member has a finite result"
    if len(reference.values) < 2 or all(c.p is None for c in compared):
        return (
            "one seed for each setting cannot tell differences from chance; repeat it with --seed 0..4 to "
            "tell settings apart"
        )
    unsure = [c for c in compared if c.p is None or c.p > LEVEL]
    if not unsure:
        tests = f"paired t-tests, Holm's correction for {len(compared)}, 5%"
        return f"every other setting differs from the best ({tests})"
    counts = [c.enough for c in unsure if c.enough is not None]
    more = f"; about {min(counts)} seeds would tell the first of them apart" if counts else ""
    return (
        f"{len(unsure)} of {len(compared)} other settings cannot be told from the best with "
        f"{len(reference.values)} seeds (paired t-tests, Holm's correction, 5%){more}"
    )
