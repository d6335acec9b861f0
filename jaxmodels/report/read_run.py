"""A run's folder as plain facts. What is missing or damaged becomes a sentence, and the rest is still read."""

from __future__ import annotations

import ast
import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.runs import files

ROOM, TEXT = 1_500_000, 20_000  # bytes of pictures or sounds, characters of a text that a page holds at most
MOST_TEXTS, LINE = 100, 1 << 20  # texts of a page, and bytes of a line of metrics.jsonl that is read
WORDS = 500  # characters of an example's name and what is wrong with it
PNG = b"\x89PNG"  # how such a file begins
NUMBERS = (
    "steps",
    "examples_per_s",
    "train_s",
    "wall_s",
    "compile_s",
    "input_idle_s",
    "skipped",
    "parameters",
    "peak_memory_bytes",
)
OBJECTS = ("knobs", "options", "metrics", "baselines", "devices", "versions", "broken")
NO_METRICS = ("step", "seconds", "seconds_waited")


class Curve(NamedTuple):
    """One logged value: at which steps, after how many seconds of training, and nan where it was not finite."""

    step: np.ndarray
    seconds: np.ndarray
    value: np.ndarray


@dataclass
class Run:
    """What a run's folder holds, and in notes what it should hold and does not."""

    path: Path
    name: str
    about: str = ""  # the first paragraph of the experiment's docstring
    knobs: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation, by "name/metric"
    curves: dict[str, Curve] = field(default_factory=dict)
    seconds: Curve | None = None  # value: seconds waited for input, where they are logged
    pictures: list[tuple[str, bytes]] = field(default_factory=list)
    newest: int = 0  # how many of the first pictures are the newest of their name
    texts: list[tuple[str, str]] = field(default_factory=list)
    profile: dict[str, Any] = field(default_factory=dict)  # of jaxmodels.training.profile
    notes: list[str] = field(default_factory=list)


def read(folder: str | Path) -> Run:
    """The facts of a run's folder; raises ValueError where it is none."""
    path = Path(folder)
    if not any(_is_regular(path / name) for name in ("knobs.json", "metrics.jsonl", "result.json")):
        why = "it has neither knobs.json nor metrics.jsonl" if path.is_dir() else "there is no such folder"
        raise ValueError(
            f"{path} is not a run's folder: {why}. Give the folder that `jaxmodels train` named last"
        )
    run = Run(path, path.resolve().name)
    known = _object(run, "knobs.json")
    run.knobs, run.options = known.get("knobs", {}), known.get("options", {})
    run.environment, run.result = _object(run, "environment.json"), _object(run, "result.json")
    run.about = _about(path / "experiment.py")
    _read_log(run)
    if files.regular(path / "profile", "operations.json"):
        run.profile = _object(run, "profile/operations.json")
    _say_broken(run)
    stated = {who: of for who, of in run.result.get("baselines", {}).items() if isinstance(of, dict)}
    run.result["baselines"] = {
        who: {n: float(x) for n, x in of.items() if is_number(x)} for who, of in stated.items()
    }
    run.metrics = {name: float(x) for name, x in run.result.get("metrics", {}).items() if is_number(x)}
    if not run.metrics:
        run.metrics = {n: float(c.value[-1]) for n, c in run.curves.items() if not n.startswith("train/")}
    _read_pictures(run)
    texts = files.regular(path, "*.txt")
    for file in texts[:MOST_TEXTS]:
        try:
            text = files.read_bytes(file).decode("utf-8", errors="replace")
        except (OSError, files.BadFile) as error:
            run.notes.append(f"{file.name} is left out ({error}).")
            continue
        run.texts.append((file.stem, text[:TEXT] + (" …" if len(text) > TEXT else "")))
    return run


def _object(run: Run, name: str) -> dict[str, Any]:
    """The JSON object in a file; {} with a note where there is none."""
    try:
        found = files.read_json(files.inside(run.path, name))
    except FileNotFoundError:
        also = ": the run goes on still, or was killed" if name == "result.json" else ""
        run.notes.append(f"{name} is missing{also}.")
    except (ValueError, OSError) as error:
        run.notes.append(f"{name} cannot be read ({error}); what it says is left out.")
    else:
        found = {key: x for key, x in found.items() if x is not None}
        wrong = [key for key, x in found.items() if not _is_sound(key, x)]
        if wrong:
            run.notes.append(f"{name} says of {', '.join(wrong)} what cannot be; that is left out.")
        return {key: x for key, x in found.items() if key not in wrong}
    return {}


def _say_broken(run: Run) -> None:
    """Notes how many examples could not be loaded, of each data set, with the first of them."""
    for name, found in run.result.get("broken", {}).items():
        if (
            not isinstance(found, dict)
            or not is_number(found.get("count"))
            or not isinstance(found.get("examples"), list)
        ):
            run.notes.append(
                f"result.json says of the broken examples of {name} what cannot be; that is left out."
            )
            continue
        first = f"The first: {str(found['examples'][0])[:WORDS]}. " if found["examples"] else ""
        run.notes.append(
            f"{name}: {found['count']:,} examples could not be loaded and count nowhere. {first}result.json has the list."
        )


def _is_sound(name: str, x: Any) -> bool:
    return is_number(x) if name in NUMBERS else isinstance(x, dict) if name in OBJECTS else True


def _is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def is_number(x: Any) -> bool:
    """Whether it is a number that can be shown; nan and infinity cannot."""
    return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e300


def _about(file: Path) -> str:
    try:
        text = ast.get_docstring(ast.parse(files.read_text(file))) or ""
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    first = " ".join(text.partition("\n\n")[0].split())
    return first.partition("  ")[0].partition("jaxmodels train")[0].rstrip(" :")


def _read_log(run: Run) -> None:
    """Curves and clock from metrics.jsonl. A resumed run's clock begins again at 0, so what was before is added."""
    rows: list[Mapping[str, Any]] = []
    try:
        lines, cut = files.read_lines(run.path / "metrics.jsonl")
    except (OSError, files.BadFile) as error:
        run.notes.append(
            f"metrics.jsonl cannot be read ({getattr(error, 'strerror', error)}), so there are no curves."
        )
        return
    if cut:
        run.notes.append(
            f"metrics.jsonl is longer than {files.LOG_LIMIT >> 20} MiB, of which its end is shown."
        )
    for line in lines:
        try:
            row = json.loads(line if len(line) <= LINE else b"")
            whole = math.isfinite(_number(row["step"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if whole:
            rows.append(row)
    if bad := len(lines) - len(rows):
        run.notes.append(
            f"Of {len(lines):,} lines of metrics.jsonl, {bad:,} cannot be read, and are left out."
        )
    timed = [row for row in rows if is_number(row.get("seconds"))]
    steps = np.array([row["step"] for row in timed], float)
    seconds, waited = (_going_on([_number(row.get(name)) for row in timed]) for name in NO_METRICS[1:])
    if timed:
        run.seconds = Curve(steps, seconds, waited)
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        for name, x in row.items():
            if name not in NO_METRICS and (x is None or isinstance(x, int | float)):
                points[name].append((row["step"], _number(x)))
    for name, pairs in points.items():
        at, values = np.array(pairs, float).T
        run.curves[name] = Curve(
            at, np.interp(at, steps, seconds) if timed else np.full(len(at), np.nan), values
        )


def _going_on(clock: list[float]) -> np.ndarray:
    """A clock that may have begun again, as one that never goes back."""
    x = np.array(clock, float)
    back = np.where(np.diff(x) < 0, x[:-1], 0.0) if len(x) else x
    return x + np.concatenate([[0.0], np.cumsum(back)])[: len(x)]


def _number(x: Any) -> float:
    return float(x) if is_number(x) else math.nan


def _read_pictures(run: Run) -> None:
    """Pictures, the newest of each name first, as far as a page has room."""
    found = files.regular(run.path / "pictures", "*.png")
    found.sort(key=lambda f: (f.stem.rstrip("0123456789"), -_step(f.stem)))
    rank: dict[str, int] = defaultdict(int)
    order = []
    for file in found:
        rank[file.stem.rstrip("0123456789")] += 1
        order.append((rank[file.stem.rstrip("0123456789")], file))
    left, out = ROOM, 0
    for place, file in sorted(order, key=lambda pair: pair[0]):
        try:
            data = files.read_bytes(file, limit=left)
        except (OSError, files.BadFile):
            data = b""
        if data.startswith(PNG):
            left -= len(data)
            run.pictures.append((file.stem, data))
            run.newest += place == 1
        else:
            out += 1
    if out:
        run.notes.append(
            f"{out} of {len(found)} pictures are left out: no PNG files, or no room for them in this page."
        )


def _step(stem: str) -> int:
    digits = stem[len(stem.rstrip("0123456789")) :]
    return int(digits[-15:]) if digits else 0


def rates(run: Run, batch: int | None) -> dict[str, Curve]:
    """Examples (or, where the batch is not known, steps) a second, and the share of time waited for input, by interval.

    Intervals end where the clock has moved on: several lines may come of one dispatch.
    """
    if run.seconds is None:
        return {}
    batch = batch if is_number(batch) else None
    step, seconds, waited = (np.concatenate([[0.0], x]) for x in run.seconds)
    on = np.concatenate([[True], seconds[1:] > np.maximum.accumulate(seconds)[:-1]])
    step, seconds, waited = step[on], seconds[on], waited[on]
    if len(step) < 2:
        return {}
    took = np.diff(seconds)
    found = {("examples" if batch else "steps") + " per second": np.diff(step) * (batch or 1) / took}
    if np.isfinite(waited).all():
        found["time waited for input"] = np.clip(np.diff(waited) / took, 0, 1)
    return {name: Curve(step[1:], seconds[1:], value) for name, value in found.items()}
