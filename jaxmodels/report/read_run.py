"""A run's folder as plain facts. What is missing or damaged becomes a note, and the rest is still read."""

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

ROOM, TEXT = 1_500_000, 20_000  # bytes of images or sounds, characters of a text that a page holds at most
MOST_TEXTS, LINE = 100, 1 << 20  # texts of a page, and bytes of a line of metrics.jsonl that is read
EXCERPT = 500  # characters of the name of a broken example and its fault
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
    """One logged value: its steps, its seconds of training, and nan where it was not finite."""

    step: np.ndarray
    seconds: np.ndarray
    value: np.ndarray


@dataclass
class Run:
    """What a run's folder holds, and in notes what is missing or damaged."""

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
    images: list[tuple[str, bytes]] = field(default_factory=list)
    newest: int = 0  # the first n images are the newest of their name
    sounds: list[tuple[str, bytes]] = field(default_factory=list)  # WAV files, the newest of each name
    texts: list[tuple[str, str]] = field(default_factory=list)
    profile: dict[str, Any] = field(default_factory=dict)  # of jaxmodels.training.profile
    notes: list[str] = field(default_factory=list)


def read_run(folder: str | Path) -> Run:
    """The facts of a run's folder; raises ValueError where it is none."""
    path = Path(folder)
    if not any(_is_regular(path / name) for name in ("knobs.json", "metrics.jsonl", "result.json")):
        why = "a folder without knobs.json and metrics.jsonl" if path.is_dir() else "no such folder"
        raise ValueError(
            f"{path}: got {why}; expected a run's folder. Give the folder that `jaxmodels train` named last"
        )
    run = Run(path, path.resolve().name)
    identity = _read_object(run, "knobs.json")
    run.knobs, run.options = identity.get("knobs", {}), identity.get("options", {})
    run.environment, run.result = _read_object(run, "environment.json"), _read_object(run, "result.json")
    run.about = _first_paragraph(path / "experiment.py")
    _read_log(run)
    if files.regular(path / "profile", "operations.json"):
        run.profile = _read_object(run, "profile/operations.json")
    _note_broken_examples(run)
    _read_metrics(run)
    _read_images(run)
    _read_sounds(run)
    _read_texts(run)
    return run


def _read_object(run: Run, name: str) -> dict[str, Any]:
    """The JSON object in a file; {} with a note where there is none."""
    try:
        content = files.read_json(files.inside(run.path, name))
    except FileNotFoundError:
        why = ": the run still goes on, or was killed" if name == "result.json" else ""
        run.notes.append(f"{name} is missing{why}.")
        return {}
    except (ValueError, OSError) as error:
        run.notes.append(f"{name} cannot be read ({error}) and is ignored.")
        return {}
    content = {key: x for key, x in content.items() if x is not None}
    wrong = [key for key, x in content.items() if not _has_right_type(key, x)]
    if wrong:
        run.notes.append(f"{name} has impossible values of {', '.join(wrong)}, which are ignored.")
    return {key: x for key, x in content.items() if key not in wrong}


def _has_right_type(name: str, x: Any) -> bool:
    return is_number(x) if name in NUMBERS else isinstance(x, dict) if name in OBJECTS else True


def _is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def is_number(x: Any) -> bool:
    """Whether it is a number that can be shown; nan and infinity cannot."""
    return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e300


def _number(x: Any) -> float:
    return float(x) if is_number(x) else math.nan


def _first_paragraph(file: Path) -> str:
    """That of a module's docstring, without its command."""
    try:
        text = ast.get_docstring(ast.parse(files.read_text(file))) or ""
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    first = " ".join(text.partition("\n\n")[0].split())
    return first.partition("  ")[0].partition("jaxmodels train")[0].rstrip(" :")


def _note_broken_examples(run: Run) -> None:
    """Notes how many examples of each data set could not be loaded, with the first of them."""
    for name, broken in run.result.get("broken", {}).items():
        known = isinstance(broken, dict) and is_number(broken.get("count"))
        if not known or not isinstance(broken.get("examples"), list):
            run.notes.append(f"result.json has impossible values of broken examples of {name}; ignored.")
            continue
        first = f"The first: {str(broken['examples'][0])[:EXCERPT]}. " if broken["examples"] else ""
        run.notes.append(
            f"{name}: {broken['count']:,} examples could not be loaded and count nowhere. {first}"
            "result.json has the list."
        )


def _read_metrics(run: Run) -> None:
    """Metrics of the result and of its baselines; without a result, the last of the evaluations' curves."""
    baselines = {}
    for name, metrics in run.result.get("baselines", {}).items():
        if isinstance(metrics, dict):
            baselines[name] = {metric: float(x) for metric, x in metrics.items() if is_number(x)}
    run.result["baselines"] = baselines
    run.metrics = {name: float(x) for name, x in run.result.get("metrics", {}).items() if is_number(x)}
    if not run.metrics:
        evaluations = [name for name in run.curves if not name.startswith("train/")]
        run.metrics = {name: float(run.curves[name].value[-1]) for name in evaluations}


def _read_log(run: Run) -> None:
    """Curves and clock from metrics.jsonl. A resumed run's clock begins at 0: the time before is added."""
    rows: list[Mapping[str, Any]] = []
    try:
        lines, cut = files.read_lines(run.path / "metrics.jsonl")
    except (OSError, files.BadFile) as error:
        why = getattr(error, "strerror", error)
        run.notes.append(f"metrics.jsonl cannot be read ({why}), so there are no curves.")
        return
    if cut:
        limit = files.LOG_LIMIT >> 20
        run.notes.append(f"metrics.jsonl is longer than {limit} MiB; only its end is shown.")
    for line in lines:
        try:
            row = json.loads(line if len(line) <= LINE else b"")
            has_step = math.isfinite(_number(row["step"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if has_step:
            rows.append(row)
    if bad := len(lines) - len(rows):
        run.notes.append(f"{bad:,} of {len(lines):,} lines of metrics.jsonl cannot be read, and are ignored.")
    timed = [row for row in rows if is_number(row.get("seconds"))]
    steps = np.array([row["step"] for row in timed], float)
    seconds, waited = (_monotonic([_number(row.get(name)) for row in timed]) for name in NO_METRICS[1:])
    if timed:
        run.seconds = Curve(steps, seconds, waited)
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        for name, x in row.items():
            if name not in NO_METRICS and (x is None or isinstance(x, int | float)):
                points[name].append((row["step"], _number(x)))
    for name, pairs in points.items():
        step, value = np.array(pairs, float).T
        when = np.interp(step, steps, seconds) if timed else np.full(len(step), np.nan)
        run.curves[name] = Curve(step, when, value)


def _monotonic(clock: list[float]) -> np.ndarray:
    """A clock that may have begun again, as one that never goes back."""
    x = np.array(clock, float)
    back = np.where(np.diff(x) < 0, x[:-1], 0.0) if len(x) else x
    return x + np.concatenate([[0.0], np.cumsum(back)])[: len(x)]


def _read_sounds(run: Run) -> None:
    """WAV files, the newest of each name, as many as fit a page."""
    newest: dict[str, Path] = {}
    for file in files.regular(run.path / "sounds", "*.wav"):
        name = _without_step(file)
        if name not in newest or _step(file) > _step(newest[name]):
            newest[name] = file
    room = ROOM
    for name in sorted(newest):
        try:
            data = files.read_bytes(newest[name], limit=room)
        except (OSError, files.BadFile):
            data = b""
        if data.startswith(b"RIFF"):
            room -= len(data)
            run.sounds.append((newest[name].stem, data))
    if omitted := len(newest) - len(run.sounds):
        run.notes.append(
            f"{omitted} of {len(newest)} sounds are omitted: no WAV files, or too large for this page."
        )


def _read_images(run: Run) -> None:
    """Images, the newest of each name first, as many as fit a page."""
    found = files.regular(run.path / "pictures", "*.png")
    found.sort(key=lambda file: (_without_step(file), -_step(file)))
    age: dict[str, int] = defaultdict(int)
    aged = []
    for file in found:
        age[_without_step(file)] += 1
        aged.append((age[_without_step(file)], file))
    room, omitted = ROOM, 0
    for rank, file in sorted(aged, key=lambda pair: pair[0]):
        try:
            data = files.read_bytes(file, limit=room)
        except (OSError, files.BadFile):
            data = b""
        if data.startswith(PNG):
            room -= len(data)
            run.images.append((file.stem, data))
            run.newest += rank == 1
        else:
            omitted += 1
    if omitted:
        run.notes.append(
            f"{omitted} of {len(found)} images are omitted: no PNG files, or too large for this page."
        )


def _without_step(file: Path) -> str:
    return file.stem.rstrip("0123456789")


def _step(file: Path) -> int:
    digits = file.stem[len(_without_step(file)) :]
    return int(digits[-15:]) if digits else 0


def _read_texts(run: Run) -> None:
    for file in files.regular(run.path, "*.txt")[:MOST_TEXTS]:
        try:
            text = files.read_bytes(file).decode("utf-8", errors="replace")
        except (OSError, files.BadFile) as error:
            run.notes.append(f"{file.name} cannot be read ({error}) and is ignored.")
            continue
        run.texts.append((file.stem, text[:TEXT] + (" …" if len(text) > TEXT else "")))


def rates(run: Run, batch: int | None) -> dict[str, Curve]:
    """Examples (steps, where the batch is not known) a second, and the share of time waited for input.

    By interval. An interval ends where the clock has moved on: several lines may come of one dispatch.
    """
    if run.seconds is None:
        return {}
    batch = batch if is_number(batch) else None
    step, seconds, waited = (np.concatenate([[0.0], x]) for x in run.seconds)
    moved = np.concatenate([[True], seconds[1:] > np.maximum.accumulate(seconds)[:-1]])
    step, seconds, waited = step[moved], seconds[moved], waited[moved]
    if len(step) < 2:
        return {}
    took = np.diff(seconds)
    values = {("examples" if batch else "steps") + " per second": np.diff(step) * (batch or 1) / took}
    if np.isfinite(waited).all():
        values["time waited for input"] = np.clip(np.diff(waited) / took, 0, 1)
    return {name: Curve(step[1:], seconds[1:], value) for name, value in values.items()}
