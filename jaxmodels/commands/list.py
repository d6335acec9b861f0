"""jaxmodels list: a folder's experiments, their stated results and their last runs. No file is executed."""

from __future__ import annotations

import ast
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmodels.console import Console, number

GAP = "  "
NARROW = 120  # columns: a narrower terminal shows no stated results


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """What is listed."""

    runs: str = "runs"
    """The folder of runs' folders."""
    models: bool = False
    """The library's models instead: parameters, input, and whose weights they read.
    Of all families, or of those named."""


def list_experiments(
    folder: str | Path = "experiments", *, runs: str | Path = ListOptions.runs
) -> list[dict[str, Any]]:
    """For each file with a function build and a class Config: {"file", "about", "stated", "last"}.

    about: the docstring's first sentence. stated: its text after "Result:", or "".
    last: the newest run in the folder `runs`, {"run", "when", "exit", "metrics", "baselines"}, or None.
    Raises ValueError where the folder is none.
    """
    from jaxmodels.runs.files import read_bytes

    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: got {'a file' if folder.exists() else 'no such folder'}; expected a folder of "
            "experiments' files. Give one"
        )
    lines: list[dict[str, Any]] = []
    for file in sorted(folder.glob("*.py")):  # links too: they are the user's own
        try:
            tree = ast.parse(read_bytes(file.resolve()))
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
            lines.append({"file": str(file), "about": f"cannot be read: {error}", "stated": "", "last": None})
            continue
        if {"build", "Config"} <= {
            x.name for x in tree.body if isinstance(x, ast.FunctionDef | ast.ClassDef)
        }:
            text = ast.get_docstring(tree) or ""
            lines.append(
                {
                    "file": str(file),
                    "about": _about(text),
                    "stated": _stated(text),
                    "last": _last(Path(runs), file.stem),
                }
            )
    return lines


def _about(text: str) -> str:
    """The first sentence, without the command that may follow it on the line."""
    first = re.split(r":?\s+(?:jaxmodels|python) ", " ".join(text.split("\n\n")[0].split()))[0]
    return re.split(r"(?<=[^.]\.)\s", first)[0].rstrip(".:")


def _stated(text: str) -> str:
    match = re.search(r"^Result(?: of [^:\n]*)?:\s*(.+?)(?:\n\s*\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return " ".join(match[1].split()) if match else ""


def _last(runs: Path, name: str) -> dict[str, Any] | None:
    """The newest finished run of an experiment: runs/NAME, or runs/NAME-knob=value."""
    from jaxmodels.runs.files import read_json

    results = [run / "result.json" for pattern in (name, f"{name}-*=*") for run in runs.glob(pattern)]
    files = [file for file in results if file.is_file() and not file.is_symlink()]
    for file in sorted(files, key=lambda file: -file.stat().st_mtime):
        try:
            result = read_json(file)
        except (OSError, ValueError):
            continue
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(file.stat().st_mtime))
        objects = {
            key: x if isinstance(x := result.get(key), dict) else {} for key in ("metrics", "baselines")
        }
        return {"run": str(file.parent), "when": when, "exit": result.get("exit"), **objects}
    return None


def show(lines: list[dict[str, Any]], console: Console) -> None:
    """A line for each experiment: name, about, stated result and last run, cut to a terminal's width."""
    if not lines:
        console.say("no experiment: no file has a class Config and a function build")
        return
    rows = [("experiment", "", "stated", "last run")]
    rows += [
        (Path(line["file"]).stem, line["about"], line["stated"], _result(line["last"])) for line in lines
    ]
    room = shutil.get_terminal_size((1 << 16, 24)).columns
    if room < NARROW:
        rows = [(name, about, "", last) for name, about, _, last in rows]
    lasts = max((len(last) for *_, last in rows[1:]), default=0)
    widths = [max(len(row[0]) for row in rows), 0, 0, min(lasts, room // 3)]
    room -= sum(widths) + (2 + bool(lasts)) * len(GAP)
    widths[2] = min(max(len(row[2]) for row in rows), room // 2)
    widths[1] = min(max(len(row[1]) for row in rows), room - widths[2])

    def cut(text, n):
        return text if len(text) <= n else text[: max(0, n - 1)].rstrip() + "…" * bool(n)

    for i, row in enumerate(rows):
        cells = [cut(cell, n).ljust(n) for cell, n in zip(row, widths, strict=True) if n]
        console.say(GAP.join(cells).rstrip(), "dim" if i == 0 else None)


def show_models(lines: Iterable[Mapping[str, Any]], console: Console) -> Iterator[Mapping[str, Any]]:
    """Yields each line of the models' table, and prints it at once, as counting a model takes a while."""
    room = shutil.get_terminal_size((1 << 16, 24)).columns - len(GAP) * 3 - 18 - 15 - 26
    console.say(GAP.join([f"{'model':18}", f"{'parameters':>15}", f"{'input':26}", "weights of"]), "dim")
    for line in lines:
        source = line["source"] if len(line["source"]) <= room else line["source"][: max(0, room - 1)] + "…"
        cells = [f"{line['name']:18}", f"{line['parameters']:15,}", f"{line['input']:26}", source]
        console.say(GAP.join(cells).rstrip())
        yield line


def _result(last: dict[str, Any] | None) -> str:
    """The first metric that is no loss, with the day and the baselines' values of it."""
    if last is None:
        return ""
    metrics = {k: x for k, x in (last["metrics"] or {}).items() if isinstance(x, int | float)}
    name = next((k for k in metrics if not k.endswith("loss")), next(iter(metrics), ""))
    if not name:
        return f"{str(last['exit']).partition(':')[0]}, {last['when'][:10]}"
    named = {
        who: of[name] for who, of in (last["baselines"] or {}).items() if isinstance(of, dict) and name in of
    }
    beside = ", ".join(f"{who} {number(x)}" for who, x in named.items() if isinstance(x, int | float))
    return f"{name.rpartition('/')[2]} {number(metrics[name])}, {last['when'][:10]}" + (
        f" ({beside})" if beside else ""
    )
