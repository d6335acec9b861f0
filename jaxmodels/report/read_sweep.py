"""A sweep's folder as plain facts: its members, its settings and what may be said of them, finished or not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodels.report.read_run import Run, is_number, read
from jaxmodels.runs.files import folders, read_json
from jaxmodels.sweeps.statistics import Comparison, Setting, compare, goal_of, settings, verdict

PARTS = 5  # into which the values of a knob are put where nearly each is another


@dataclass
class Swept:
    """run: the sweep's own folder; members: their knobs are those that are swept; best: None where no mean is finite."""

    run: Run
    members: list[Run]
    metric: str
    goal: str
    seed: str  # the knob that is repeated, "" where none is
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


def read_sweep(folder: Path) -> Swept:
    """The facts of a sweep's folder; raises ValueError where no member has begun."""
    run = read(folder)
    run.notes = [
        note for note in run.notes if not note.startswith(("metrics.jsonl", "result.json is missing"))
    ]
    table = run.result
    listed = [
        m["name"] for m in _list(table, "members") if isinstance(m, dict) and isinstance(m.get("name"), str)
    ]
    found = sorted(folders(folder / "members"), key=lambda p: (p.stat().st_mtime_ns, p.name))
    order = {name: i for i, name in enumerate(listed)}
    members = [
        read(p) for p in sorted(found, key=lambda p: order.get(p.name, len(order))) if any(p.iterdir())
    ]
    if not members:
        raise ValueError(f"{folder} is a sweep of which no member has begun; give it when some have")
    for member in members:
        member.knobs = _swept(member)
        run.notes += [
            f"{member.name}: {n}"
            for n in member.notes
            if not n.startswith(("environment.json", "result.json is"))
        ]
    rows: list[dict[str, Any]] = [
        {
            "knobs": member.knobs,
            "metrics": member.metrics if member.result.get("metrics") else {},
            "exit": str(member.result.get("exit", "")),
        }
        for member in members
    ]
    names = [name for row in rows for name in row["metrics"]]
    metric = _text(table, "metric") or next(
        (n for n in names if "accuracy" in n), names[0] if names else "loss"
    )
    goal = _text(table, "goal") or goal_of(metric)
    without = [
        s["knobs"]
        for s in _list(table, "settings")[:1]
        if isinstance(s, dict) and isinstance(s.get("knobs"), dict)
    ]
    all_knobs = list(rows[0]["knobs"])
    seed = (
        next((k for k in all_knobs if k not in without[0]), "")
        if without
        else "seed"
        if "seed" in all_knobs
        else ""
    )
    for row in rows:
        if isinstance(row["knobs"].get(seed), list | dict):
            row["knobs"] = {**row["knobs"], seed: repr(row["knobs"][seed])}  # what cannot be counted by
    of = settings([row for row in rows if row["exit"]], seed, metric)
    best, compared = compare(of, goal)
    left = sum(not row["exit"] for row in rows)
    if left:
        run.notes.append(f"{left} of {len(rows)} members have not ended yet.")
    by = {repr(c.knobs): c for c in compared}
    return Swept(run, members, metric, goal, seed, of, best, by, verdict(best, compared))


def _list(table: dict[str, Any], name: str) -> list[Any]:
    return x if isinstance(x := table.get(name), list) else []


def _text(table: dict[str, Any], name: str) -> str:
    return x if isinstance(x := table.get(name), str) else ""


def _swept(member: Run) -> dict[str, Any]:
    """A member's own knobs: its knobs.json is a plain object of them."""
    try:
        return read_json(member.path / "knobs.json")
    except (OSError, ValueError):
        return {}


def importance(swept: Swept, knob: str) -> float | None:
    """The share of the variance of the settings' means that the knob's values explain alone; None where it cannot be told.

    Epsilon squared of a one-way analysis of variance (T. L. Kelley, 1935): unlike eta squared it is 0 in the
    mean for a knob without influence. Numbers of which nearly each setting has its own are put into PARTS
    parts of equal size.
    """
    known = [s for s in swept.settings if math.isfinite(s.mean)]
    values, means = [s.knobs[knob] for s in known], np.array([s.mean for s in known])
    kinds = sorted({repr(v) for v in values})
    if len(kinds) > len(known) / 2 and all(is_number(v) for v in values):
        ranks = np.argsort(np.argsort(values, kind="stable"))
        groups = ranks * min(PARTS, len(known) // 2) // max(1, len(known))
    else:
        groups = np.array([kinds.index(repr(v)) for v in values])
    count, whole = len({*groups.tolist()}), float(((means - means.mean()) ** 2).sum()) if len(means) else 0.0
    if count < 2 or len(known) <= count or whole == 0:
        return None
    inside = sum(
        float(((means[groups == g] - means[groups == g].mean()) ** 2).sum()) for g in {*groups.tolist()}
    )
    return max(0.0, (whole - inside - (count - 1) * inside / (len(known) - count)) / whole)
