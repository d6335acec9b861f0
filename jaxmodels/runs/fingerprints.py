"""The fingerprints of an experiment's data, and what differs between those of a run and what is read now.

By name: "train", and "evals/NAME" of each evaluation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from jaxmodels.experiment import Experiment, as_evaluation

# Seconds that a fingerprint took while training, up to which a command that does not read the data takes one.
QUICK = 1.0


def fingerprints(experiment: Experiment, names: Any = None) -> dict[str, dict[str, Any]]:
    """{"fingerprint", "seconds"} of each data set, or of the named ones; without those that have none."""
    data = {"train": experiment.train}
    data |= {f"evals/{name}": as_evaluation(one).data for name, one in experiment.evals.items()}
    found = {}
    for name in data if names is None else [name for name in data if name in names]:
        begun = time.perf_counter()
        try:
            told = data[name].fingerprint()
        except Exception:  # data that cannot be read says so to whoever reads it; here it is only not known
            told = ""
        if told:
            found[name] = {"fingerprint": told, "seconds": round(time.perf_counter() - begun, 3)}
    return found


def stored(value: Any) -> dict[str, dict[str, Any]]:
    """What a run's folder says of its data, without what cannot be."""
    found = value.items() if isinstance(value, dict) else ()

    def sound(x):
        return isinstance(x, dict) and isinstance(x.get("fingerprint"), str)

    return {name: {"seconds": 0.0, **one} for name, one in found if sound(one)}


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names of data sets whose fingerprints are both known, and differ."""
    return [
        name for name in before if name in after and before[name]["fingerprint"] != after[name]["fingerprint"]
    ]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The same in sentences."""
    return [
        f"{title(name)}: its examples, or their order, are others (fingerprint "
        f"{before[name]['fingerprint'][:8]} there, {after[name]['fingerprint'][:8]} here)"
        for name in changed(before, after)
    ]


def worth_comparing(before: Mapping[str, Any], evaluates: bool) -> list[str]:
    """The data sets to compare: those of evaluations, where these are made, and those that take no time."""
    return [
        n for n, one in before.items() if not one["seconds"] > QUICK or (evaluates and n.startswith("evals/"))
    ]


def title(name: str) -> str:
    """A data set as a message names it."""
    return (
        "the training data"
        if name == "train"
        else f"the data of the evaluation {name.removeprefix('evals/')!r}"
    )
