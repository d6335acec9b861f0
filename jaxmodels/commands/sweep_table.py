"""The command line of a sweep, and its table for people."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax

from jaxmodels.commands.sweep import sweep
from jaxmodels.console import Console, duration, number
from jaxmodels.options import Options
from jaxmodels.runs import experiment_file
from jaxmodels.runs.metrics_file import finite
from jaxmodels.sweeps.extract import take
from jaxmodels.sweeps.lockstep import Stopped

SHOWN = 20  # settings in the table


def main(path: str, words: list[str], parse: Callable[[list[str]], dict[str, Any]]) -> int:
    """jaxmodels sweep FILE WORDS; parse reads the options among them."""
    if Path(path).is_dir():
        given = parse(words)["sweeping"]
        if not given.take:
            raise ValueError(
                f"{path} is a folder; give the experiment's file to sweep, or --take MEMBER to take one out of it"
            )
        made = take(path, given.take, given.folder or Path("runs") / given.take)
        command = shlex.join(["jaxmodels", "train", str(made / "experiment.py"), "--folder", str(made)])
        print(f"{made}: go on with {command}, and the same knobs")
        return 0
    file = experiment_file.load(path)
    names = [f.name for f in fields(file.config)]
    knobs, rest = _knobs(words, names)
    got = parse(rest)
    given, printing = got["sweeping"], got["printing"]
    console = Console(quiet=printing.quiet, json=printing.json)
    if given.on:
        jax.config.update("jax_platforms", "cpu")  # this process takes no accelerator that its jobs could use
    options = Options(precision=given.precision, accumulate=given.accumulate)
    chosen = {k: v for k, v in vars(given).items() if k not in ("take", "precision", "accumulate")}
    try:
        table = sweep(file, options=options, console=console, **chosen, **knobs)
    except Stopped as stop:
        saved = f"saved at step {stop.step:,}" if stop.step else "saved"
        console.say(f"{saved}; the same command goes on from there", "bold")
        return stop.exit_status
    _show(table, console)
    if printing.json:
        print(json.dumps(finite(table), default=str))
    return 1 if table["failed"] else 0


def _knobs(words: list[str], names: list[str]) -> tuple[dict[str, Any], list[str]]:
    """(values of knobs as they were written, the other words)."""
    knobs: dict[str, Any] = {}
    rest = []
    words = list(words)
    while words:
        word = words.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if word.startswith("--") and name.partition(".")[0] in names and "." in name:
            raise ValueError(
                f"{word}: got a part of the knob {name.partition('.')[0]}, a dataclass; expected a plain one: a sweep has "
                "no others on its command line. Give Config a knob of its own for it"
            )
        if not word.startswith("--") or name not in names:
            rest.append(word)
        elif not equals and not words:
            raise ValueError(f"{word} has no value; give one or several, as in {word} 1,2,3")
        else:
            knobs[name] = value if equals else words.pop(0)
    return knobs, rest


def _show(table: dict[str, Any], console: Console) -> None:
    metric, rows = table["metric"], []
    knobs = list(table["settings"][0]["knobs"])
    for s in table["settings"][:SHOWN]:
        mean = number(s["mean"]) + (f" ± {number(s['interval'])}" if s["interval"] is not None else "")
        p = "best" if s["best"] else "" if s["p"] is None else f"{s['p']:.2g}"
        lost = (
            f"{s['diverged']} diverged"
            if s["diverged"]
            else f"stopped at {s['stopped']:,}"
            if s["stopped"]
            else ""
        )
        rows.append(
            [" ".join(f"{k}={s['knobs'][k]}" for k in knobs) or "all", mean, str(len(s["values"])), p, lost]
        )
    console.say()
    more = len(table["settings"]) - SHOWN
    title = f"{metric}, mean and 95% interval" + (
        f"; {more} more settings in result.json" if more > 0 else ""
    )
    console.table(title, ["", metric, "seeds", "p", ""], rows)
    console.say(f"\n{table['verdict']}")
    spent = f"{len(table['members'])} members in {duration(table['wall_s'])}"
    console.say(f"\n{spent}" + (f", {c:.0f} s of it compiling" if (c := table["compile_s"]) == c else ""))
    console.say(f"\n{table['folder']}", "bold")
    best = min(
        (m for m in table["members"] if m["metrics"]),
        key=lambda m: m["metrics"][metric] * (-1 if table["goal"] == "max" else 1),
        default=None,
    )
    if best is not None:
        words = [
            "jaxmodels",
            "sweep",
            table["folder"],
            "--take",
            best["name"],
            "--folder",
            f"runs/{best['name']}",
        ]
        console.say(f"  take one out   {shlex.join(words)}")
    sys.stdout.flush()
