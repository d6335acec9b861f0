"""What seeds allow to be said of settings: means with intervals, and paired tests against the best one.

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
LOWER = (
    "loss",
    "error",
    "perplexity",
    "bits",
    "mse",
    "mae",
    "distance",
    "rate",
)  # words of metrics that should be small
MANY = 100_000  # seeds beyond which nobody counts
POWER = 0.8  # chance of telling settings apart that differ as much as these seem to


class Setting(NamedTuple):
    """knobs; values of the metric by seed, without members that diverged; interval: half of its width, None for one seed.

    stopped: the step at which halving ended it, whose values these are then.
    """

    knobs: dict[str, Any]
    values: dict[Any, float]
    diverged: int
    stopped: int | None
    mean: float
    interval: float | None


class Comparison(NamedTuple):
    """A setting against the reference, over common seeds. p: Holm's; None where it cannot be had. enough: seeds wanted."""

    knobs: dict[str, Any]
    difference: float
    p: float | None
    enough: int | None


def goal_of(metric: str) -> str:
    """Whether much or little of a metric is wanted, by its name."""
    return "min" if any(word in metric.rpartition("/")[2] for word in LOWER) else "max"


def check_metric(metric: str, names: Iterable[str]) -> None:
    """Raises where there are metrics, and this is none of them."""
    if (known := sorted(names)) and metric not in known:
        raise ValueError(f"--metric {metric}: the evaluations give {', '.join(known)}; take one of those")


def worth(metrics: Mapping[str, float], diverged: int | None, metric: str, goal: str) -> float:
    """How good a member is, more is better; the worst of all where it has diverged or has no finite value."""
    check_metric(metric, metrics)
    value = metrics.get(metric)
    if diverged is not None or value is None or not math.isfinite(value):
        return -math.inf
    return value if goal == "max" else -value


def settings(members: Sequence[Mapping[str, Any]], seed: str, metric: str) -> list[Setting]:
    """By setting, in the order in which they first come. members: knobs and metrics; seed: the name of that knob."""
    found: dict[str, tuple[dict[str, Any], dict[Any, float], list[Any], list[int]]] = {}
    for member in members:
        knobs = {k: v for k, v in member["knobs"].items() if k != seed}
        _, values, lost, early = found.setdefault(repr(knobs), (knobs, {}, [], []))
        value = member["metrics"].get(metric)
        stopped = STOPPED.fullmatch(member["exit"])
        if (member["exit"] != "complete" and not stopped) or value is None or not math.isfinite(value):
            lost.append(member)
        else:
            values[member["knobs"].get(seed)] = value
        early += [int(stopped[1].replace(",", ""))] if stopped else []
    return [
        _setting(knobs, values, len(lost), max(early, default=None))
        for knobs, values, lost, early in found.values()
    ]


def _setting(knobs: dict[str, Any], values: dict[Any, float], lost: int, stopped: int | None) -> Setting:
    x, n = np.asarray(list(values.values())), len(values)
    half = float(stats.t.ppf(0.975, n - 1) * x.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    return Setting(knobs, values, lost, stopped, float(x.mean()) if n else math.nan, half)


def compare(
    all_of: Sequence[Setting], goal: str, reference: Setting | None = None
) -> tuple[Setting | None, list[Comparison]]:
    """(the reference, by default the best mean; every other setting against it)."""
    usable = [s for s in all_of if s.values and s.stopped is None]
    if not usable:
        return None, []
    better = max if goal == "max" else min
    reference = reference or better(usable, key=lambda s: s.mean)
    others = [s for s in usable if s is not reference]
    raw = [_paired(s, reference) for s in others]
    corrected = holm([p for _, p, _ in raw])
    return reference, [
        Comparison(s.knobs, difference, p, _enough(differences, len(others)))
        for s, (difference, _, differences), p in zip(others, raw, corrected, strict=True)
    ]


def _paired(setting: Setting, reference: Setting) -> tuple[float, float | None, np.ndarray]:
    common = [seed for seed in setting.values if seed in reference.values]
    differences = np.asarray([setting.values[s] - reference.values[s] for s in common])
    if len(common) < 2:
        return setting.mean - reference.mean, None, differences
    if np.ptp(differences) == 0:
        return float(differences.mean()), 0.0 if differences[0] else 1.0, differences
    return float(differences.mean()), float(stats.ttest_1samp(differences, 0.0).pvalue), differences


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's correction: the smallest p times their number, the next times one less, never below the one before."""
    known = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    found: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        found[i] = highest
    return found


def _enough(differences: np.ndarray, tests: int) -> int | None:
    """Seeds with which a difference as seen would show with the chance POWER at the level LEVEL / tests."""
    if len(differences) < 2 or differences.mean() == 0:
        return None
    if (spread := differences.std(ddof=1)) == 0:
        return 2
    effect, level = abs(differences.mean()) / spread, LEVEL / tests
    z = stats.norm.ppf(1 - level / 2) + stats.norm.ppf(POWER)
    n = max(2, math.floor(min((z / effect) ** 2, MANY)))  # what a known spread would need: a lower bound
    while n < MANY and power(effect, n, level) < POWER:
        n += 1
    return n


def power(effect: float, n: int, level: float) -> float:
    """The chance that a two-sided one-sample t-test of n values shows a mean of effect standard deviations at this level.

    The mean over the estimated spread's distribution of what a normal test would give, which is the
    noncentral t's.
    """
    critical = stats.t.ppf(1 - level / 2, n - 1)
    spread = np.sqrt(stats.chi2.ppf((np.arange(2000) + 0.5) / 2000, n - 1) / (n - 1))
    shift = effect * math.sqrt(n)
    return float(
        np.mean(stats.norm.cdf(shift - critical * spread) + stats.norm.cdf(-shift - critical * spread))
    )


def verdict(reference: Setting | None, compared: Sequence[Comparison]) -> str:
    """What may be said, in a sentence or two."""
    if reference is None:
        return "no member came to a finite result"
    if len(reference.values) < 2 or all(c.p is None for c in compared):
        return "one seed for each setting says nothing of chance; repeat it with --seed 0..4 to tell settings apart"
    unsure = [c for c in compared if c.p is None or c.p > LEVEL]
    if not unsure:
        return f"every other setting differs from the best (paired t-tests, Holm's correction for {len(compared)}, 5%)"
    counts = [c.enough for c in unsure if c.enough is not None]
    more = f"; about {min(counts)} seeds would tell the first of them apart" if counts else ""
    return (
        f"{len(unsure)} of {len(compared)} other settings cannot be told from the best with {len(reference.values)} seeds "
        f"(paired t-tests, Holm's correction, 5%){more}"
    )
