"""A run, or a sweep, as it stands now, for the terminal. Only the folder's files are read."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jaxmodels.analysis.text_plot import plot
from jaxmodels.console import duration, number, shown
from jaxmodels.report.read_run import Curve, Run, rates, read_run
from jaxmodels.report.read_sweep import is_sweep, read_sweep

QUIET = 120.0  # seconds without a line, after which that is shown
MEMBERS = 30  # of a sweep that are shown, at most
FACTS = {"train/loss": "loss", "train/learning_rate": "rate", "train/grad_norm": "gradient norm"}


def frame(folder: Path, width: int) -> tuple[RenderableType, bool]:
    """(what is shown, whether the run or sweep has ended)."""
    return _sweep(folder) if is_sweep(folder) else _run(read_run(folder), width)


def _run(run: Run, width: int) -> tuple[RenderableType, bool]:
    steps = int(run.result.get("steps") or run.environment.get("steps") or 0)
    done = int(max((curve.step[-1] for curve in run.curves.values()), default=0))
    over = bool(run.result.get("exit"))
    batch = run.environment.get("batch")
    speed = rates(run, batch if isinstance(batch, int) else None)
    left = _left(run, done, steps) if steps and not over else ""
    head = Text.assemble(
        (shown(run.name), "bold"),
        f"  {shown(_state(run))}  ",
        (f"step {done:,}", "bold"),
        f" of {steps:,}" if steps else "",
    )
    parts: list[RenderableType] = [Text.assemble(head, f"  {left}" if left else "")]
    if steps:
        full = min(width, 100) * min(done, steps) // steps
        parts.append(Text.assemble("━" * full, ("━" * (min(width, 100) - full), "bright_black")))
    facts = [f"{FACTS[name]} {number(_last(run.curves[name]))}" for name in FACTS if name in run.curves]
    for name, curve in speed.items():
        share = name.startswith("time")
        facts.append(f"{_last(curve):.0%} of the {name}" if share else f"{_last(curve):,.0f} {name}")
    parts.append(Text("  ".join(facts)))
    if "train/loss" in run.curves:
        parts += [Text(), *map(Text, plot(run.curves["train/loss"].value, min(width, 100)))]
    if run.metrics:
        parts += [Text(), _evaluations(run)]
    return Group(*parts), over


def _left(run: Run, done: int, steps: int) -> str:
    """How long it takes still, by the speed of the last tenth of what was logged."""
    if run.seconds is None or len(run.seconds.step) < 2:
        return ""
    step, seconds, _ = run.seconds
    at = max(0, len(step) - 1 - max(1, len(step) // 10))
    each = (seconds[-1] - seconds[at]) / max(1.0, step[-1] - step[at])
    return f"{duration(each * (steps - done))} left" if each > 0 else ""


def _state(run: Run) -> str:
    if run.result.get("exit"):
        return str(run.result["exit"])
    file = run.path / "metrics.jsonl"
    silent = time.time() - file.lstat().st_mtime if file.exists() else 0.0
    return (
        f"no line for {duration(silent)}: stopped, or one step takes so long" if silent > QUIET else "running"
    )


def _last(curve: Curve) -> float:
    return float(curve.value[-1]) if len(curve.value) else math.nan


def _evaluations(run: Run) -> Table:
    stated = run.result.get("baselines", {})
    table = _table("", "now", "best", *stated)
    for name, value in run.metrics.items():
        known = np.append(run.curves[name].value if name in run.curves else [], value)
        known = known[np.isfinite(known)] if np.isfinite(known).any() else known
        best = known.min() if "loss" in name else known.max()
        beside = [number(of[name]) if name in of else "" for of in stated.values()]
        table.add_row(Text(shown(name)), number(value), number(float(best)), *beside)
    return table


def _sweep(folder: Path) -> tuple[RenderableType, bool]:
    swept = read_sweep(folder)
    rows, ended = [], 0
    for member in swept.members:
        ended += bool(member.result.get("exit"))
        done = int(max((curve.step[-1] for curve in member.curves.values()), default=0))
        value = member.metrics.get(swept.metric, math.nan)
        loss = _last(member.curves["train/loss"]) if "train/loss" in member.curves else math.nan
        rows.append(
            (
                value,
                [
                    member.name,
                    f"{done:,}",
                    number(loss),
                    number(value),
                    str(member.result.get("exit") or "running"),
                ],
            )
        )
    sign = -1 if swept.goal == "max" else 1
    rows.sort(key=lambda row: (math.isnan(row[0]), sign * row[0]))
    head = Text.assemble((shown(swept.run.name), "bold"), f"  {ended} of {len(rows)} members have ended")
    table = _table("member", "step", "loss", swept.metric, "")
    for _, row in rows[:MEMBERS]:
        table.add_row(*(Text(shown(cell)) for cell in row))
    more = [Text(f"and {len(rows) - MEMBERS} more", style="dim")] if len(rows) > MEMBERS else []
    return Group(head, table, *more), (folder / "result.json").is_file()


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for i, column in enumerate(columns):
        table.add_column(Text(shown(column)), justify="left" if i == 0 else "right", header_style="dim")
    return table
