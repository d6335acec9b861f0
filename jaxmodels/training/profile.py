"""train --profile 10:15: what the device does in some steps, as a trace to look at and by the modules of the model.

A trace names operations as the compiled program does, and that program's text says in which scopes each was
traced: flax opens one for every module, jvp and transpose are those of the gradient.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxmodels.analysis import hlo
from jaxmodels.console import Console
from jaxmodels.parallel import processes
from jaxmodels.runs.files import write_text
from jaxmodels.runs.folder import Folder
from jaxmodels.training.clock import Clock

KEPT, SHOWN = 200, 10  # operations in operations.json, and of these in the console and on a page
HEAD = ("module", "operation", "pass", "ms", "share", "times")
# Of what XLA calls better than JAX, which has fused a transposition with a product, or named an exchange by
# what it is of.
NAMES = {"dot": "dot_general", "convolution": "conv_general_dilated", **{kind: kind for kind in hlo.KINDS}}
_CONTROL = re.compile(
    r"while|body|cond|branch_\d+_fun|closed_call|eval_jaxpr|checkpoint|rematted_computation|shard_map|custom_\w+_call\w*|"
)

Scopes = Mapping[str, tuple[str, str]]  # of a program: instruction -> (HLO operation, op_name)


class Operation(NamedTuple):
    """All that a module does by one operation in one pass. seconds: of all devices and threads, without what it calls."""

    module: str  # GPT/blocks/qkv, by flax's names; "" outside of modules
    operation: str  # as JAX calls it
    direction: str  # forward, backward, or "" where it is neither
    seconds: float
    times: int
    instructions: list[str]  # as they are called in the trace


def window(text: str, steps: int) -> tuple[int, int] | None:
    """(first, last) of --profile 10:15, which goes from when 10 of all the steps are done until 15 are; None without it."""
    if not text:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not first < last:
        raise ValueError(
            f"--profile {text}: it must be two steps, the first one before the other, as in 10:15"
        )
    if first >= steps:
        raise ValueError(f"--profile {text}: the run ends at step {steps:,}; give steps before that")
    return first, min(last, steps)


class Profile:
    """The trace of a run's window of steps, widened to whole dispatches."""

    def __init__(self, steps: tuple[int, int] | None, folder: Folder | None, console: Console):
        if steps and folder is None:
            raise ValueError(
                "profile needs a place for the trace, but the run has no folder; give one: folder='runs/mine'"
            )
        self._window, self._console = steps or (0, 0), console
        self._path = folder.path / "profile" if folder else Path()
        self._begun: int | None = None

    @contextlib.contextmanager
    def around(
        self,
        start: int,
        stop: int,
        clock: Clock,
        settle: Callable[[], None],
        state: Callable[[], Any],
        texts: Callable[[], Iterable[str]],
    ) -> Iterator[None]:
        """Begins and ends the trace around a dispatch, while nothing else runs.

        settle() waits for what runs; state(): the newest; texts(): of the programs that may have run.
        """
        if self.begins(start, stop):
            settle()
            with clock.paused():
                self.begin(start, state())
        yield
        if self.ends(stop):
            settle()
            with clock.paused():
                self.end(stop, state(), texts)

    def begins(self, start: int, stop: int) -> bool:
        """Whether the dispatch of these steps is the first of the window, or of what a resumed run has left of it."""
        first, last = self._window
        return self._begun is None and start < last and stop > first

    def ends(self, stop: int) -> bool:
        """Whether the dispatch that ends at this step is the last of the window."""
        return self._begun is not None and stop >= self._window[1]

    def begin(self, start: int, state: Any) -> None:
        """Starts the trace, when the device has come to rest; of several processes, of the first one."""
        jax.block_until_ready(state)
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        if processes.first():
            jax.profiler.start_trace(self._path, profiler_options=options)
        self._begun = start

    def end(self, stop: int, state: Any, texts: Callable[[], Iterable[str]]) -> None:
        """Ends the trace and says what took the time. texts: of the programs that may have run."""
        jax.block_until_ready(state)
        start = self._begun or 0
        self.close()
        if processes.first():
            with self._console.busy(f"reading the profile of steps {start:,} to {stop:,}"):
                self._read(start, stop, dict(map(hlo.scopes, texts())))
        processes.barrier("profiled")

    def _read(self, start: int, stop: int, programs: Mapping[str, Scopes]) -> None:
        file = max(self._path.rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime_ns)
        with (
            warnings.catch_warnings()
        ):  # jaxlib's types of a trace have no module: an error of that ends the process
            warnings.simplefilter("ignore", DeprecationWarning)
            found = _as_rows(
                operations(jax.profiler.ProfileData.from_file(str(file)), programs), stop - start
            )
        write_text(
            self._path / "operations.json",
            json.dumps({"first": start, "last": stop, "operations": found}, indent=1),
        )
        if found:
            title = f"What takes the time of steps {start:,} to {stop:,}; ms and times are those of one step"
            self._console.table(title, HEAD, [cells(row) for row in found[:SHOWN]])
        else:
            self._console.warn(
                f"the trace in {self._path} names no operation of the step: what takes the time is not known"
            )

    def close(self) -> None:
        """Ends the trace, where it goes on; there is no other in this process."""
        if self._begun is not None:
            self._begun, self._window = None, (0, 0)
            if processes.first():
                jax.profiler.stop_trace()


def operations(trace: Any, programs: Mapping[str, Scopes]) -> list[Operation]:
    """What of a trace (jax.profiler.ProfileData) was done by the programs, by their names; the most expensive first."""
    seconds: dict[tuple[str, str, str], float] = {}
    times: dict[tuple[str, str, str], int] = {}
    names: dict[tuple[str, str, str], dict[str, None]] = {}
    for line in _lines(trace, programs):
        open_: list[
            tuple[float, str, tuple[str, str, str]]
        ] = []  # (end, op_name, key) of what the next event may lie in
        for begin, end, name, (kind, op_name) in sorted(line, key=lambda event: (event[0], -event[1])):
            while open_ and open_[-1][0] <= begin:
                open_.pop()
            bare = name.partition(".")[
                0
            ]  # what XLA has made of its own, such as a copy, belongs where it happens
            op_name = op_name or (f"{open_[-1][1].rpartition('/')[0]}/{bare}" if open_ else bare)
            key = place(op_name, kind)
            if open_:
                seconds[open_[-1][2]] -= (min(end, open_[-1][0]) - begin) / 1e9
            seconds[key] = seconds.get(key, 0.0) + (end - begin) / 1e9
            times[key] = times.get(key, 0) + 1
            names.setdefault(key, {})[name] = None
            open_.append((end, op_name, key))
    found = [Operation(*key, max(0.0, seconds[key]), times[key], list(names[key])) for key in seconds]
    return sorted(found, key=lambda operation: -operation.seconds)


def _lines(
    trace: Any, programs: Mapping[str, Scopes]
) -> Iterator[list[tuple[float, float, str, tuple[str, str]]]]:
    """(begin, end, instruction, scopes) of the programs' events, by lines: threads of a CPU, streams of an accelerator."""
    known = {name for scopes in programs.values() for name in scopes}
    planes = [plane for plane in trace.planes if plane.name.startswith("/device:")]
    for plane in planes or trace.planes:
        for line in plane.lines:
            found = []
            for event in line.events:
                name = event.name.partition(" = ")[0].lstrip("%")  # a TPU's has the whole instruction
                if not planes and name not in known:
                    continue
                stats = dict(event.stats)
                name, program = str(stats.get("hlo_op", name)), str(stats.get("hlo_module", ""))
                scopes = programs.get(program.partition("(")[0])
                if scopes is None and not program:
                    scopes = next((of for of in programs.values() if name in of), None)
                if scopes is not None and name in scopes:
                    found.append((event.start_ns, event.start_ns + event.duration_ns, name, scopes[name]))
            yield found


def place(op_name: str, kind: str) -> tuple[str, str, str]:
    """(module, operation, pass) of jit(f)/transpose(jvp(GPT.hidden))/blocks/dot_general; kind: what HLO calls it."""
    op_name, several, _ = op_name.partition(";")[0].partition(
        "/("
    )  # XLA has made one exchange of several: a/(b/add:c/add)
    *scopes, last = f"{op_name}/{kind}".split("/") if several else op_name.split("/")
    direction = "backward" if "transpose(" in op_name else "forward" if "jvp(" in op_name else ""
    path: list[str] = []
    for scope in scopes:
        scope = scope if "<" not in scope else ""  # a function within another
        while match := re.fullmatch(
            r"(\w*)\((.*)\)", scope
        ):  # jvp(GPT) is GPT; the function of jit(clip) is no module
            scope = "" if match[1] in ("jit", "pjit", "pmap") else match[2]
        scope = scope.partition(".")[0]  # without the method
        if not _CONTROL.fullmatch(scope) and re.fullmatch(r"\w+", scope) and path[-1:] != [scope]:
            path.append(scope)
    return "/".join(path), NAMES.get(kind.removesuffix("-start").removesuffix("-done"), last), direction


def _as_rows(found: Sequence[Operation], steps: int) -> list[dict[str, Any]]:
    whole = sum(operation.seconds for operation in found)
    return [
        {
            "module": operation.module,
            "operation": operation.operation,
            "pass": operation.direction,
            "ms": operation.seconds * 1e3 / steps,
            "share": operation.seconds / whole if whole else 0.0,
            "times": operation.times / steps,
            "instructions": operation.instructions[:KEPT],
        }
        for operation in found[:KEPT]
    ]


def cells(row: Mapping[str, Any]) -> list[str]:
    """One of the operations of operations.json, as text under HEAD."""
    module, times = row["module"] or "(no module)", row["times"]
    return [module, row["operation"], row["pass"], f"{row['ms']:.3g}", f"{row['share']:.1%}", f"{times:,.4g}"]


def look(folder: Path) -> list[str]:
    """Two ways to look at the newest trace in a run's folder; none where there is none."""
    traces = list((folder / "profile").rglob("*.trace.json.gz"))
    if not traces:
        return []
    newest = max(traces, key=lambda file: file.stat().st_mtime_ns)
    command = shlex.join(["xprof", "--logdir", str(folder / "profile")])
    return [f"{command}  (or tensorboard, with xprof installed)", f"{newest} at ui.perfetto.dev"]
