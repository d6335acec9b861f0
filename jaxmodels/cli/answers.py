"""What `jaxmodels predict` prints: one answer in full, several as a table, or JSON lines; faults apart."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from jaxmodels.console import Console, number

if TYPE_CHECKING:
    from jaxmodels.commands.predict import Forecast, Predicted

BLOCK = 200  # rows of a table
WIDTH = 60  # characters of a cell
SAID = 20  # faults that are said one by one


def show(console: Console, predicted: Iterator[Predicted], table: str) -> int:
    """Prints the answers, block by block; how many inputs could not be used.

    table: the path that they are written to as well; then people get only their number.
    """
    count = faults = 0
    with console.busy("predicting"):
        while block := list(itertools.islice(predicted, BLOCK)):
            if console.json:
                for one in block:
                    print(_line(one.report), flush=True)
            elif not table:
                good = [one for one in block if not one.answer.error]
                alone = count == 0 and len(block) == 1
                _single(console, good) if alone else _table(console, good)
            for one in block:
                faults += bool(one.fault)
                if one.fault and faults <= SAID:
                    console.warn(one.fault)
            count += len(block)
    if faults > SAID:
        console.warn(
            f"and {faults - SAID:,} more, {faults:,} of {count:,} inputs: see the column error of -o"
        )
    if table:
        console.say(f"{table}: {count:,} rows, {faults:,} of them with an error", "bold")
    return faults


def show_forecast(console: Console, found: Forecast) -> dict[str, Any]:
    """Prints the steps after a table of series, or where they are written; gives them as JSON."""
    rows = [[_text("", value, WIDTH) for value in row] for row in zip(*found.columns.values(), strict=True)]
    if found.path:
        console.say(
            f"{found.path}: {len(rows):,} steps" + f"; drawn in {found.picture}" * bool(found.picture), "bold"
        )
    else:
        console.table("", [*found.columns], rows[:BLOCK], left=True)
    return {"forecast": found.columns, "path": found.path, "picture": found.picture}


def _line(report: dict[str, Any]) -> str:
    from jaxmodels.runs.metrics_file import finite

    return json.dumps(finite(report), default=str)


def _single(console: Console, block: Sequence[Predicted]) -> None:
    for one in block:
        console.say(_where(one), "bold")
        for name, value in one.report.items():
            if name not in one.given.place:
                console.say(f"  {name:12} {_text(name, value, 1000)}")


def _table(console: Console, block: Sequence[Predicted]) -> None:
    names = [*dict.fromkeys(name for one in block for name in one.answer.values)]
    rows = [
        [_cut(_where(one)), *(_text(name, one.answer.values.get(name, ""), WIDTH) for name in names)]
        for one in block
    ]
    if rows:
        console.table("", ["", *names], rows, left=True)
    if pictures := [one.picture for one in block if one.picture]:
        console.say(f"drawings: {pictures[0]}" + f" and {len(pictures) - 1} more" * (len(pictures) > 1))


def _where(one: Predicted) -> str:
    """The input itself where it is a text, else where it comes from."""
    return str(one.given.place.get("text", one.given.name))


def _text(name: str, value: Any, width: int) -> str:
    if name == "likeliest" and isinstance(value, dict):
        return ", ".join(f"{label} {share:.1%}" for label, share in value.items())
    if name == "probability" and isinstance(value, float):
        return f"{value:.1%}"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list) and len(value) > 8:
        shown = " ".join(_text("", x, width) for x in value[:4])
        return f"{shown} … ({len(value)} values)"
    return _cut(value if isinstance(value, str) else json.dumps(value, default=str), width)


def _cut(text: str, width: int = WIDTH) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 1]}…"
