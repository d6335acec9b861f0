"""What a run learns from its data before training: class names, vocabularies, means and scales, rows
of a split.

A run's parameters mean something only beside these values, so they belong to the run. Training computes
them and keeps them in the run's folder, in learned.json with a checksum; whatever uses that folder later
reads them there, and does not ask the data again:

    scale = learned("scale", lambda: {"mean": table["x"].mean().item(), "std": table["x"].std().item()})

Outside of any run, learned() only computes.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.runs import checksummed_json
from jaxmodels.runs.files import TEXT_LIMIT

NAME = "learned.json"


def learned(name: str, compute: Callable[[], Any]) -> Any:
    """What compute() found in the data when this run was trained, as JSON: tuples and arrays become lists.

    name: one for each value of an experiment. Whatever else the value depends on, such as the size of a
    vocabulary, belongs into it; a path does not, so that data may move. compute() is called once in a
    run's life.
    """
    memory = _MEMORY.get()
    return _json(name, compute()) if memory is None else memory.get(name, compute)


def remembering(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, for which learned() always means the run that is being built now, in whatever thread."""
    memory = _MEMORY.get()
    return function if memory is None else partial(_within, memory, function)


def portable_name(path: str | os.PathLike[str]) -> str:
    """A name for learned() that a moved file or folder keeps: see Memory.portable_name."""
    memory = _MEMORY.get()
    return Path(path).name if memory is None else memory.portable_name(Path(path))


class OtherData(ValueError):
    """Data that does not fit what was learned, such as a folder of an unknown class.

    The message says what to do.
    """


class Memory:
    """The values that one run has learned, by name. keep(values) is called whenever there is a new one."""

    __slots__ = ("_keep", "_lock", "_paths", "_pipelines", "values")

    def __init__(self, values: Mapping[str, Any] | None = None):
        self.values = dict(values or {})
        self._keep: Callable[[Mapping[str, Any]], object] | None = None
        self._lock = threading.RLock()
        self._paths: dict[str, list[str]] = {}  # last part of a path -> the paths that end in it
        self._pipelines = 0

    def __eq__(self, other: object) -> bool:
        """Whether they agree in every value that both have: of two that learn from the same data, one
        may have more.
        """
        if not isinstance(other, Memory):
            return False
        return all(
            self.values[name] == other.values[name] for name in self.values.keys() & other.values.keys()
        )

    __hash__ = None  # type: ignore[assignment]

    @contextmanager
    def building(self) -> Iterator[None]:
        """Until its end, learned() means this memory, and pipelines are counted from the first."""
        self._pipelines = 0
        token = _MEMORY.set(self)
        try:
            yield
        finally:
            _MEMORY.reset(token)

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """See learned."""
        if name not in self.values:
            # Without the lock: what compute reads may wait for threads that learn something too.
            value = _json(name, compute())
            with self._lock:
                if name not in self.values:
                    self.values[name] = value
                    if self._keep is not None:
                        self._keep(self.values)
        return self.values[name]

    def keep(self, keep: Callable[[Mapping[str, Any]], object]) -> None:
        """From now on keep(values) is called for every new value, and once now where there are some."""
        with self._lock:
            self._keep = keep
            if self.values:
                keep(self.values)

    def portable_name(self, path: Path) -> str:
        """The last part of a file's or folder's path; numbered where another path ends in the same."""
        with self._lock:
            known = self._paths.setdefault(path.name, [])
            if str(path) not in known:
                known.append(str(path))
            number = known.index(str(path)) + 1
        return path.name if number == 1 else f"{path.name} ({number})"

    def next_pipeline(self) -> int:
        """The number of a pipeline among those of an experiment, in the order in which build() makes them."""
        with self._lock:
            self._pipelines += 1
            return self._pipelines


class PipelineMemory(NamedTuple):
    """What a pipeline tells of its data, for where that is absent: a prediction needs no training set."""

    memory: Memory | None
    number: int

    @classmethod
    def here(cls) -> PipelineMemory:
        """That of the pipeline that is being made."""
        memory = _MEMORY.get()
        return cls(memory, 0 if memory is None else memory.next_pipeline())

    def get(self, what: str, compute: Callable[[], Any]) -> Any:
        """compute(), a JSON value; where the data is absent or another, what it was when the run was trained.

        Whoever reads rows of another data set gets its error; what only builds the model does not need them.
        """
        if self.memory is None:
            return compute()
        name = f"pipeline {self.number}: {what}"
        try:
            value = compute()
        except (FileNotFoundError, OtherData):
            if name not in self.memory.values:
                raise
            return self.memory.values[name]
        self.memory.get(name, lambda: value)
        return value

    def spec(self, first: Callable[[], Mapping[str, Any]]) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shapes and types, without the example axis, of the arrays of first(), a batch.

        Remembered likewise.
        """
        spec: dict[str, tuple[tuple[int, ...], Any]] = {}

        def described() -> list[Any]:
            spec.update({name: (x.shape[1:], x.dtype) for name, x in first().items()})
            return [[name, shape, _name_of(np.dtype(dtype))] for name, (shape, dtype) in spec.items()]

        remembered = self.get("spec", described)
        return spec or {name: (tuple(shape), np.dtype(dtype)) for name, shape, dtype in remembered}


def read_learned(folder: Path) -> dict[str, Any]:
    """The values in a run's folder, by name; {} where it learned nothing.

    Raises Damaged where a bit has changed.
    """
    path = Path(folder) / NAME
    return checksummed_json.read(path).get("values", {}) if os.path.lexists(path) else {}


def write_learned(folder: Path, values: Mapping[str, Any]) -> None:
    """Writes the values to a run's folder; raises ValueError where they are too large to keep."""
    if (size := len(json.dumps(values))) > TEXT_LIMIT - 1000:
        largest = max(values, key=lambda name: len(json.dumps(values[name])))
        raise ValueError(
            f"learned(): got {size:,} bytes, of which {largest!r} has most; expected at most {TEXT_LIMIT:,} "
            "of names, words and numbers. Keep large arrays in files of the experiment's own, and learn "
            "which"
        )
    checksummed_json.write(Path(folder) / NAME, {"values": dict(values)})


_MEMORY: ContextVar[Memory | None] = ContextVar("jaxmodels_learned", default=None)


def _name_of(dtype: np.dtype) -> str:
    return dtype.str if dtype.kind in "biufc" else dtype.name


def _within(memory: Memory, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    token = _MEMORY.set(memory)
    try:
        return function(*arguments, **named)
    finally:
        _MEMORY.reset(token)


def _as_python(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, which are equal to them."""
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufUT":
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__}")


def _json(name: str, value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, default=_as_python))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"learned({name!r}): got {type(value).__name__} ({error}); expected a JSON value: numbers, "
            "strings, lists and dicts of them, or arrays. Convert it to one"
        ) from error
