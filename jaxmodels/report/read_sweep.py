"""A sweep's folder as plain facts: its members, its settings and their statistics, finished or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodels.report.read_run import Run, is_number, read_run
from jaxmodels.runs.files import folders, read_json
from jaxmodels.sweeps.statistics import Comparison, Setting, compare, goal_of, settings, verdict

BINS = 5  # of the values of a knob, where nearly every setting has a value of its own


@dataclass
class Sweep:
    """run: the sweep's own folder; members: with swept knobs alone; best: None where no mean is finite."""

    run: Run
    members: list[Run]
    metric: str
    goal: str
    seed: str  # the repeated knob, "" where none is
    settings: list[Setting]
    best: Setting | None
    compared: dict[str, Comparison]  # by repr of the knobs
    verdict: str

    @property
    def knobs(self) -> list[str]:
        """The knobs that tell settings apart."""
        return list(self.settings[0].knobs) if self.settings else []


def is_sweep(folder: Path) -> bool:
    """Whether this is a folder of `jaxmodels sweep`."""
    return (folder / "members").is_dir() and not (folder / "members").is_symlink()


def read_sweep(folder: Path) -> Sweep:
    """The facts of a sweep's folder; raises ValueError where no member has begun."""
    run = read_run(folder)
    ignored = ("metrics.jsonl", "result.json is missing")
    run.notes = [note for note in run.notes if not note.startswith(ignored)]
    table = run.result
    members = _read_members(folder, _list(table, "members"))
    if not members:
        raise ValueError(
            f"{folder}: got a sweep without members that have begun; expected some. Wait for the first ones"
        )
    rows: list[dict[str, Any]] = []
    for member in members:
        for note in member.notes:
            if not note.startswith(("environment.json", "result.json is")):
                run.notes.append(f"{member.name}: {note}")
        metrics = member.metrics if member.result.get("metrics") else {}
        rows.append({"knobs": member.knobs, "metrics": metrics, "exit": str(member.result.get("exit", ""))})
    metric = _text(table, "metric") or _default_metric(rows)
    goal = _text(table, "goal") or goal_of(metric)
    seed = _seed(table, list(rows[0]["knobs"]))
    for row in rows:
        if isinstance(row["knobs"].get(seed), list | dict):
            row["knobs"] = {**row["knobs"], seed: repr(row["knobs"][seed])}  # a seed must be hashable
    ended = settings([row for row in rows if row["exit"]], seed, metric)
    best, compared = compare(ended, goal)
    running = sum(not row["exit"] for row in rows)
    if running:
        run.notes.append(f"{running} of {len(rows)} members have not ended yet.")
    by_knobs = {repr(c.knobs): c for c in compared}
    return Sweep(run, members, metric, goal, seed, ended, best, by_knobs, verdict(best, compared))


def _read_members(folder: Path, table: list[Any]) -> list[Run]:
    """Members that have begun, in the order of result.json, then by age; each with its own knobs alone."""
    names = [m["name"] for m in table if isinstance(m, dict) and isinstance(m.get("name"), str)]
    order = {name: i for i, name in enumerate(names)}
    begun = [path for path in folders(folder / "members") if any(path.iterdir())]
    begun.sort(key=lambda path: (order.get(path.name, len(order)), path.stat().st_mtime_ns, path.name))
    members = [read_run(path) for path in begun]
    for member in members:
        member.knobs = _member_knobs(member)
    return members


def _member_knobs(member: Run) -> dict[str, Any]:
    """The swept knobs of a member: its knobs.json is a plain object of them."""
    try:
        return read_json(member.path / "knobs.json")
    except (OSError, ValueError):
        return {}


def _default_metric(rows: Sequence[dict[str, Any]]) -> str:
    names = [name for row in rows for name in row["metrics"]]
    return next((name for name in names if "accuracy" in name), names[0] if names else "loss")


def _seed(table: dict[str, Any], knobs: list[str]) -> str:
    """The repeated knob: the one that the settings of result.json lack; before there is one, `seed`."""
    for setting in _list(table, "settings")[:1]:
        if isinstance(setting, dict) and isinstance(setting.get("knobs"), dict):
            return next((name for name in knobs if name not in setting["knobs"]), "")
    return "seed" if "seed" in knobs else ""


def _list(table: dict[str, Any], name: str) -> list[Any]:
    return x if isinstance(x := table.get(name), list) else []


def _text(table: dict[str, Any], name: str) -> str:
    return x if isinstance(x := table.get(name), str) else ""


def importance(sweep: Sweep, knob: str) -> float | None:
    """The share of the variance of the settings' means that the knob's values explain alone; None if unknown.

    Epsilon squared of a one-way analysis of variance (T. L. Kelley, 1935): unlike eta squared its mean is 0
    for a knob without influence. Where nearly every setting has a number of its own, the numbers are put into
    BINS bins of equal size.
    """
    finite = [s for s in sweep.settings if math.isfinite(s.mean)]
    values, means = [s.knobs[knob] for s in finite], np.array([s.mean for s in finite])
    kinds = sorted({repr(value) for value in values})
    if len(kinds) > len(finite) / 2 and all(is_number(value) for value in values):
        ranks = np.argsort(np.argsort(values, kind="stable"))
        groups = ranks * min(BINS, len(finite) // 2) // max(1, len(finite))
    else:
        groups = np.array([kinds.index(repr(value)) for value in values])
    count = len({*groups.tolist()})
    total = _squares(means) if len(means) else 0.0
    if count < 2 or len(finite) <= count or total == 0:
        return None
    within = sum(_squares(means[groups == group]) for group in {*groups.tolist()})
    return max(0.0, (total - within - (count - 1) * within / (len(finite) - count)) / total)


def _squares(x: np.ndarray) -> float:
    """The sum of squared deviations from the mean."""
    return float(((x - x.mean()) ** 2).sum())
