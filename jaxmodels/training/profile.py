"""train --profile 10:15: a trace of some steps, and what takes their time by the modules of the model."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxmodels.analysis import hlo, trace
from jaxmodels.console import Console
from jaxmodels.parallel import processes
from jaxmodels.runs.files import write_text
from jaxmodels.runs.folder import Folder
from jaxmodels.training.clock import Clock

SHOWN = 10  # operations in the console


def window(text: str, steps: int) -> tuple[int, int] | None:
    """(first, last) of --profile 10:15: from when 10 steps of the run are done until 15 are.

    None without it.
    """
    if not text:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not first < last:
        raise ValueError(f"--profile: got {text}; expected two steps, the lower one first. Write 10:15")
    if first >= steps:
        raise ValueError(
            f"--profile: got {text} for a run of {steps:,} steps; expected steps of the run. Give lower ones"
        )
    return first, min(last, steps)


class Profile:
    """The trace of a run's window of steps, widened to whole dispatches."""

    def __init__(self, steps: tuple[int, int] | None, folder: Folder | None, console: Console):
        if steps and folder is None:
            raise ValueError(
                "profile: got a run without a folder; expected one, for the trace. Give folder='runs/mine'"
            )
        self._window, self._console = steps or (0, 0), console
        self._path = folder.path / "profile" if folder else Path()
        self._begun: int | None = None

    def before(self, start: int, stop: int, state: Any, clock: Clock) -> None:
        """Begins the trace where the dispatch of these steps is its first, once the device is idle."""
        if self.begins(start, stop):
            jax.block_until_ready(state)
            with clock.paused():
                self.begin(start)

    def after(self, stop: int, state: Any, clock: Clock, texts: Callable[[], Iterable[str]]) -> None:
        """Ends the trace where the dispatch that ends at this step is its last; see end."""
        if self.ends(stop):
            jax.block_until_ready(state)
            with clock.paused():
                self.end(stop, texts)

    def begins(self, start: int, stop: int) -> bool:
        """Whether the dispatch of these steps is the first of the window, or of what remains of it after a
        resume.
        """
        first, last = self._window
        return self._begun is None and start < last and stop > first

    def ends(self, stop: int) -> bool:
        """Whether the dispatch that ends at this step is the last of the window."""
        return self._begun is not None and stop >= self._window[1]

    def begin(self, start: int) -> None:
        """Starts the trace; of several processes, the first one traces."""
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        if processes.first():
            jax.profiler.start_trace(self._path, profiler_options=options)
        self._begun = start

    def end(self, stop: int, texts: Callable[[], Iterable[str]]) -> None:
        """Ends the trace and says what took the time. texts: of the programs that may have run."""
        start = self._begun or 0
        self.close()
        if processes.first():
            with self._console.busy(f"reading the profile of steps {start:,} to {stop:,}"):
                self._read(start, stop, dict(map(hlo.scopes, texts())))
        processes.barrier("profiled")

    def _read(self, start: int, stop: int, programs: Mapping[str, trace.Scopes]) -> None:
        file = max(self._path.rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime_ns)
        with warnings.catch_warnings():
            # jaxlib's types of a trace have no module; a warning of that, as an error, ends the process.
            warnings.simplefilter("ignore", DeprecationWarning)
            data = jax.profiler.ProfileData.from_file(str(file))
            rows = trace.as_rows(trace.operations(data, programs), stop - start)
        content = {"first": start, "last": stop, "operations": rows}
        write_text(self._path / "operations.json", json.dumps(content, indent=1))
        if rows:
            title = f"What takes the time of steps {start:,} to {stop:,}; ms and times are those of one step"
            self._console.table(title, trace.HEAD, [trace.cells(row) for row in rows[:SHOWN]])
        else:
            self._console.warn(
                f"{self._path}: got a trace that names no operation of the step; what takes the time is not "
                "known"
            )

    def close(self) -> None:
        """Ends the trace, where it goes on; there is no other in this process."""
        if self._begun is not None:
            self._begun, self._window = None, (0, 0)
            if processes.first():
                jax.profiler.stop_trace()


def viewers(folder: Path) -> list[str]:
    """Two ways to view the newest trace in a run's folder; none where there is none."""
    traces = list((folder / "profile").rglob("*.trace.json.gz"))
    if not traces:
        return []
    newest = max(traces, key=lambda file: file.stat().st_mtime_ns)
    command = shlex.join(["xprof", "--logdir", str(folder / "profile")])
    return [f"{command}  (or tensorboard, with xprof installed)", f"{newest} at ui.perfetto.dev"]
