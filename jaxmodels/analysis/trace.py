"""Traces of jax.profiler, read: what takes the time, by the modules of the model.

A trace names operations as the compiled program does. The program's text says in which scopes each was
traced: flax opens one for every module; jvp and transpose are those of the gradient.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxmodels.analysis import hlo

KEPT = 200  # operations that are kept, and names of instructions of each
HEAD = ("module", "operation", "pass", "ms", "share", "times")
# XLA's name where it is the better one: JAX's may be of a transposition that was fused with a product, or of
# what a collective is for.
NAMES = {"dot": "dot_general", "convolution": "conv_general_dilated", **{kind: kind for kind in hlo.KINDS}}
_CONTROL = re.compile(
    r"while|body|cond|branch_\d+_fun|closed_call|eval_jaxpr|checkpoint|rematted_computation|shard_map|"
    r"custom_\w+_call\w*|"
)

Scopes = Mapping[str, tuple[str, str]]  # of a program: instruction -> (HLO operation, op_name)
Key = tuple[str, str, str]  # (module, operation, direction)


class Operation(NamedTuple):
    """All that a module does by one operation in one direction.

    seconds: of all devices and threads, without the operations that it calls.
    """

    module: str  # GPT/blocks/qkv, by flax's names; "" outside of modules
    operation: str  # as JAX calls it
    direction: str  # forward, backward, or "" where it is neither
    seconds: float
    times: int
    instructions: list[str]  # as they are called in the trace


def operations(trace: Any, programs: Mapping[str, Scopes]) -> list[Operation]:
    """The operations of these programs in a jax.profiler.ProfileData, the most expensive first."""
    seconds: dict[Key, float] = {}
    times: dict[Key, int] = {}
    names: dict[Key, dict[str, None]] = {}
    for line in _lines(trace, programs):
        enclosing: list[tuple[float, str, Key]] = []  # (end, op_name, key) of events that the next may lie in
        for begin, end, name, (kind, op_name) in sorted(line, key=lambda event: (event[0], -event[1])):
            while enclosing and enclosing[-1][0] <= begin:
                enclosing.pop()
            if not op_name:  # of XLA's own, such as a copy: it belongs to the scope in which it happens
                bare = name.partition(".")[0]
                op_name = f"{enclosing[-1][1].rpartition('/')[0]}/{bare}" if enclosing else bare
            key = locate(op_name, kind)
            if enclosing:
                seconds[enclosing[-1][2]] -= (min(end, enclosing[-1][0]) - begin) / 1e9
            seconds[key] = seconds.get(key, 0.0) + (end - begin) / 1e9
            times[key] = times.get(key, 0) + 1
            names.setdefault(key, {})[name] = None
            enclosing.append((end, op_name, key))
    found = [Operation(*key, max(0.0, seconds[key]), times[key], list(names[key])) for key in seconds]
    return sorted(found, key=lambda operation: -operation.seconds)


def _lines(
    trace: Any, programs: Mapping[str, Scopes]
) -> Iterator[list[tuple[float, float, str, tuple[str, str]]]]:
    """The programs' events by line: threads of a CPU, streams of an accelerator.

    Each event is (begin, end, instruction, scopes), in nanoseconds.
    """
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


def locate(op_name: str, kind: str) -> Key:
    """(module, operation, direction) of jit(f)/transpose(jvp(GPT.hidden))/blocks/dot_general.

    kind: the operation's name in HLO.
    """
    # XLA makes one collective of several: a/(b/add:c/add)
    op_name, several, _ = op_name.partition(";")[0].partition("/(")
    *scopes, last = f"{op_name}/{kind}".split("/") if several else op_name.split("/")
    direction = "backward" if "transpose(" in op_name else "forward" if "jvp(" in op_name else ""
    path: list[str] = []
    for scope in scopes:
        scope = scope if "<" not in scope else ""  # a function within another
        while match := re.fullmatch(r"(\w*)\((.*)\)", scope):
            # jvp(GPT) is GPT; the function of jit(clip) is no module
            scope = "" if match[1] in ("jit", "pjit", "pmap") else match[2]
        scope = scope.partition(".")[0]  # without the method
        if not _CONTROL.fullmatch(scope) and re.fullmatch(r"\w+", scope) and path[-1:] != [scope]:
            path.append(scope)
    return "/".join(path), NAMES.get(kind.removesuffix("-start").removesuffix("-done"), last), direction


def as_rows(found: Sequence[Operation], steps: int) -> list[dict[str, Any]]:
    """The most expensive operations as operations.json holds them, of one of the traced steps."""
    total = sum(operation.seconds for operation in found)
    return [
        {
            "module": operation.module,
            "operation": operation.operation,
            "pass": operation.direction,
            "ms": operation.seconds * 1e3 / steps,
            "share": operation.seconds / total if total else 0.0,
            "times": operation.times / steps,
            "instructions": operation.instructions[:KEPT],
        }
        for operation in found[:KEPT]
    ]


def cells(row: Mapping[str, Any]) -> list[str]:
    """One of the operations of operations.json, as text under HEAD."""
    module, times = row["module"] or "(no module)", row["times"]
    return [module, row["operation"], row["pass"], f"{row['ms']:.3g}", f"{row['share']:.1%}", f"{times:,.4g}"]
