"""How the benchmarks measure: cases in interleaved rounds, and what else the machine did meanwhile.

Two things timed one after the other differ by whatever changed in between, so every round times each case
once, in alternating order, and what is compared is the median over the rounds of ratios within a round. The
processor time that other programs took is read from /proc/stat: a disturbed round is made again, up to a
limit, and of all rounds the least disturbed ones count. A ratio from a busy machine is no result.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

BUSY = 0.1  # cores that others may use in a quiet round
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "keras", "torch", "transformers")


class Round(NamedTuple):
    """One case's time for a unit of its work, and the cores in use by other programs (None: unknown)."""

    seconds: float
    foreign: float | None


class Watch:
    """Cores that other programs use while this is entered."""

    foreign: float | None = None

    def __enter__(self) -> Watch:
        self._begun = time.perf_counter(), _busy(), _own()
        return self

    def __exit__(self, *_: object) -> None:
        (wall, busy, own), after = self._begun, _busy()
        if busy is not None and after is not None:
            self.foreign = max(0.0, (after - busy - (_own() - own)) / max(1e-9, time.perf_counter() - wall))


STATUS = {True: "pass", False: "FAIL", None: "-   "}  # of a check; None: not measured


def _busy() -> float | None:
    """Seconds that all cores together have worked, or were taken from this virtual machine."""
    try:
        user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    except OSError:
        return None
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    """Seconds that all threads of this process and of its children have worked."""
    t = os.times()
    living = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        living += int(fields[11]) + int(fields[12])
    return t.user + t.system + t.children_user + t.children_system + living / os.sysconf("SC_CLK_TCK")


def interleaved(
    cases: Mapping[str, Callable[[], float]], rounds: int, patience: int
) -> dict[str, list[Round]]:
    """Each case once a round, in alternating order; a case gives the seconds that a unit of its work took.

    Until there are `rounds` in which others used no more than BUSY cores, or patience x rounds in all.
    """
    made: list[dict[str, Round]] = []
    while len(made) < rounds * patience and sum(_disturbed(r) <= BUSY for r in made) < rounds:
        made.append({})
        for name in list(cases)[:: 1 if len(made) % 2 else -1]:
            with Watch() as watch:
                seconds = cases[name]()
            made[-1][name] = Round(seconds, watch.foreign)
        took = "  ".join(f"{name} {1e6 * made[-1][name].seconds:,.4g} us" for name in cases)
        note(f"  round {len(made)}: {took}  (others used {_disturbed(made[-1]):.2f} cores)")
    quietest = sorted(made, key=_disturbed)[:rounds]
    return {name: [r[name] for r in quietest] for name in cases}


def _disturbed(round: Mapping[str, Round]) -> float:
    return max(r.foreign or 0.0 for r in round.values())


def per_second(rounds: Sequence[Round], units: float = 1) -> dict[str, float]:
    """Units of work a second."""
    return spread([units / r.seconds for r in rounds])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    ordered = sorted(values)
    n = len(ordered)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return {"median": _round(middle), "min": _round(ordered[0]), "max": _round(ordered[-1])}


def microseconds(rounds: Sequence[Round]) -> dict[str, float]:
    """The times of a case."""
    return spread([1e6 * r.seconds for r in rounds])


def ratio(slow: Sequence[Round], fast: Sequence[Round]) -> dict[str, float]:
    """How many times longer `slow` takes than `fast`, in the same round."""
    return spread([a.seconds / b.seconds for a, b in zip(slow, fast, strict=True)])


def foreign(results: Mapping[str, Sequence[Round]]) -> dict[str, float] | None:
    """Cores used by others, over all cases and rounds."""
    known = [r.foreign for case in results.values() for r in case if r.foreign is not None]
    return spread(known) if known else None


def check(
    name: str, value: float | None, *, most: float | None = None, least: float | None = None
) -> dict[str, Any]:
    """A requirement and whether it holds; None where the value could not be measured."""
    held = None if value is None else (most is None or value <= most) and (least is None or value >= least)
    limit = {"most": most} if most is not None else {"least": least}
    return {"check": name, "value": value, **limit, "pass": held}


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        cpu = next(
            x.split(":")[1].strip()
            for x in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in x
        )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def versions() -> dict[str, str | None]:
    """Of everything that matters, and the commit."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found["commit"] = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        found["commit"] = None
    return found


def report(
    benchmark: str, quick: bool, cases: Mapping[str, Any], checks: Sequence[Mapping[str, Any]]
) -> None:
    """Prints everything as one line of JSON, the last on stdout; a busy machine is named."""
    medians = [case["foreign"]["median"] for case in cases.values() if case.get("foreign")]
    quiet = all(m <= BUSY for m in medians) if medians else None
    if quiet is False:
        note(f"the machine was not quiet: others used {max(medians):.2f} cores; these ratios are no result")
    for c in checks:
        limit = f"<= {c['most']}" if "most" in c else f">= {c['least']}"
        note(f"{STATUS[c['pass']]} {c['check']}: {c['value']} (expected {limit})")
    line = {
        "benchmark": benchmark,
        "quick": quick,
        "machine": machine(),
        "versions": versions(),
        "quiet": quiet,
        "cases": cases,
        "checks": list(checks),
        "pass": all(c["pass"] is not False for c in checks),
    }
    print(json.dumps(line), flush=True)


def note(text: str) -> None:
    """For whoever waits."""
    print(text, file=sys.stderr, flush=True)


def _round(x: float) -> float:
    return float(f"{x:.4g}")
