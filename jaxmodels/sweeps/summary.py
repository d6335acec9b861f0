"""The result of a sweep: its members, its settings ranked with their statistics, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxmodels.experiment import Experiment
from jaxmodels.sweeps.statistics import check_metric, compare, goal_of, settings, verdict


def summary(rows: Sequence[Mapping[str, Any]], seed: str, metric: str, goal: str) -> dict[str, Any]:
    """The members, the settings with their statistics, and the verdict on them. seed: the repeated knob."""
    check_metric(metric, {name for row in rows for name in row["metrics"]})
    goal = goal or goal_of(metric)
    by_setting = settings(rows, seed, metric)
    reference, compared = compare(by_setting, goal)
    comparisons = {repr(comparison.knobs): comparison for comparison in compared}

    def rank(setting):
        mean = -setting.mean if goal == "max" else setting.mean
        return (setting.mean != setting.mean, -(setting.stopped or 1 << 62), mean)

    ranked = []
    for setting in sorted(by_setting, key=rank):
        comparison = comparisons.get(repr(setting.knobs))
        ranked.append(
            {
                **setting._asdict(),
                "values": list(setting.values.values()),
                "best": setting is reference,
                "p": comparison.p if comparison else None,
                "difference": comparison.difference if comparison else None,
            }
        )
    return {
        "metric": metric,
        "goal": goal,
        "members": list(rows),
        "settings": ranked,
        "diverged": sum(row["exit"].startswith("NotFinite") for row in rows),
        "failed": sum(row["exit"].startswith("failed") for row in rows),
        "verdict": verdict(reference, compared),
    }


def default_metric(experiment: Experiment, rows: Sequence[Mapping[str, Any]]) -> str:
    """What members are compared by: the experiment's best, else the first accuracy, else the first metric."""
    names = list(next((row["metrics"] for row in rows if row["metrics"]), {}))
    if experiment.best is not None:
        return experiment.best[0]
    return next((name for name in names if "accuracy" in name), names[0] if names else "loss")
