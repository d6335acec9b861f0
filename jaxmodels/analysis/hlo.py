"""What one device does in a step, from the program of XLA's partitioner: collectives, products and
their bytes.

The text is read after partitioning and before a CPU's own passes, so types and operations are the model's. A
loop counts as often as it runs, where its condition compares with a constant.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

BYTES: dict[str, float] = {
    "pred": 1,
    "s4": 0.5,
    "u4": 0.5,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "bf16": 2,
    "f16": 2,
    "s32": 4,
    "u32": 4,
}
BYTES |= {
    "f32": 4,
    "s64": 8,
    "u64": 8,
    "f64": 8,
    "c64": 8,
    "c128": 16,
    "f8e4m3fn": 1,
    "f8e5m2": 1,
    "token": 0,
}
NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "f64": "float64"}
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


class Collective(NamedTuple):
    """One kind of collective over the same axes.

    bytes: that a device sends (or receives), all times together.
    """

    kind: str
    axes: tuple[str, ...]
    bytes: float
    times: int


class Work(NamedTuple):
    """Of one device, in one step.

    flops: by the operands' type; traffic: bytes of products' operands and results.
    """

    flops: dict[str, float]
    traffic: float
    collectives: list[Collective]
    loops: int  # whose trips are not known, counted once
    kernels: int  # at least: products and exchanges; what is between them may be fused with them


class Instruction(NamedTuple):
    """One line: name = shape operation(operands), attributes."""

    name: str
    shape: str
    operation: str
    operands: list[str]
    rest: str


_LINE = re.compile(r"^\s+(?:ROOT )?%?(\S+) = (\(.*?\)|\S+) ([a-z][-a-z]*)\((.*)$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")


def read(text: str, mesh: Mapping[str, int]) -> Work:
    """The work of one device in this partitioned program on this mesh (axes in order)."""
    computations, entry = _computations(text)
    trips: Counter = Counter()
    unknown: set[str] = set()
    _visit(entry, 1, computations, trips, unknown)
    flops: dict[str, float] = defaultdict(float)
    traffic = 0.0
    moved: dict[tuple[str, tuple[str, ...]], float] = defaultdict(float)
    times: Counter = Counter()
    kernels = 0
    for name, n in trips.items():
        shapes = _shapes(computations[name])
        used = _users(computations[name])
        for i in computations[name]:
            if i.operation in ("dot", "convolution"):
                kernels += n
                operands = [shapes[o] for o in i.operands]
                kind = _ARRAY.match(operands[1])[1]  # type: ignore[index]
                flops[NAMES.get(kind, kind)] += n * _flops(i, operands)
                sizes = sorted(map(_size, [*operands, i.shape]))
                # A kernel keeps the largest array of a batched product, attention's scores, on the chip.
                traffic += n * sum(sizes[:2] if "lhs_batch_dims" in i.rest else sizes)
            elif i.operation.removesuffix("-start") in KINDS:
                kind, axes, sent = _exchange(i, shapes, mesh, used)
                if sent:
                    moved[kind, axes] += n * sent
                    times[kind, axes] += n
                    kernels += n
    collectives = [
        Collective(kind, axes, moved[kind, axes], times[kind, axes]) for kind, axes in sorted(moved)
    ]
    return Work(dict(flops), traffic, collectives, len(unknown), kernels)


def scopes(text: str) -> tuple[str, dict[str, tuple[str, str]]]:
    """A compiled program's name, and for each instruction its operation and op_name: the scopes it
    was traced in.

    A fusion without one has the last one of what it fuses; "" where there is none.
    """
    computations, _ = _computations(text)
    own = {i.name: i for instructions in computations.values() for i in instructions}
    named = {
        name: match[1]
        for name, i in own.items()
        if (match := re.search(r'op_name="(\w+|[^"]*/[^"]*)"', i.rest))
    }

    def of(i: Instruction) -> str:
        called = re.search(r"calls=%?([^\s,]+)", i.rest) if i.name not in named else None
        inside = (
            [named[j.name] for j in computations.get(called[1], ()) if "/" in named.get(j.name, "")]
            if called
            else []
        )
        return named.get(i.name) or (inside[-1] if inside else "")

    return text.partition(",")[0].removeprefix("HloModule ").strip(), {
        name: (i.operation, of(i)) for name, i in own.items()
    }


def _computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    found: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            name = line.split()[1] if line.startswith("ENTRY") else line.split()[0]
            current = found.setdefault(name.lstrip("%"), [])
            entry = name.lstrip("%") if line.startswith("ENTRY") else entry
        elif current is not None and (match := _LINE.match(line)):
            inside, _, rest = match[4].partition(")")
            if match[3] == "constant":
                rest = inside
            operands = [part.strip().lstrip("%") for part in re.sub(r"/\*.*?\*/", "", inside).split(",")]
            current.append(Instruction(match[1], match[2], match[3], operands, rest))
    return found, entry


def _visit(name: str, n: int, computations: dict, trips: Counter, unknown: set[str]) -> None:
    trips[name] += n
    for i in computations[name]:
        called = dict(re.findall(r"(\w+)=%?([^\s,{}()]+)", i.rest))
        if i.operation == "while":
            count = _trips(computations[called["condition"]])
            body = called["body"]
            if count is None and _has_products(body, computations):
                unknown.add(body)
            _visit(body, n * (count or 1), computations, trips, unknown)
        elif i.operation == "conditional":
            names = re.search(r"branch_computations=\{([^}]*)\}", i.rest)[1].replace("%", "").split(", ")  # type: ignore[index]
            for branch in names[-1:]:
                _visit(branch, n, computations, trips, unknown)
        elif i.operation in ("call", "fusion"):
            inner = called.get("to_apply") or called.get("calls")
            if inner is not None and inner in computations:
                _visit(inner, n, computations, trips, unknown)


def _has_products(name: str, computations: dict) -> bool:
    return any(i.operation in ("dot", "convolution", "while") for i in computations[name])


def _trips(condition: list[Instruction]) -> int | None:
    """Of a loop that counts from 0 while it is less than a constant, or a copy of one."""
    by_name = {i.name: i for i in condition}
    for i in condition:
        if i.operation == "compare" and "direction=LT" in i.rest:
            limit = by_name.get(i.operands[1])
            while limit is not None and limit.operation == "copy":
                limit = by_name.get(limit.operands[0])
            if limit is not None and limit.operation == "constant" and limit.rest.lstrip("-").isdigit():
                return max(0, int(limit.rest))
    return None


def _arrays(shape: str) -> Iterator[tuple[str, list[int]]]:
    for kind, sizes in _ARRAY.findall(shape):
        yield kind, [int(s) for s in sizes.split(",") if s]


def _size(shape: str) -> float:
    return sum(BYTES.get(kind, 4) * math.prod(sizes) for kind, sizes in _arrays(shape))


def _flops(i: Instruction, operands: list[str]) -> float:
    [(_, out)] = _arrays(i.shape)
    (_, lhs), (_, rhs) = (next(_arrays(o)) for o in operands[:2])
    if i.operation == "dot":
        match = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.rest)
        dims = [int(d) for d in match[1].split(",") if d] if match else []
        return 2.0 * math.prod(out) * math.prod(lhs[d] for d in dims)
    labels = re.search(r"dim_labels=\w+_(\w+)->", i.rest)
    features = rhs[labels[1].index("o")] if labels else 1
    dilated = re.search(r"lhs_dilate=([\dx]+)", i.rest)
    return (
        2.0
        * math.prod(out)
        * math.prod(rhs)
        / features
        / math.prod(map(int, dilated[1].split("x")) if dilated else [1])
    )


def _shapes(instructions: list[Instruction]) -> dict[str, str]:
    """Shapes by name; name#2 is the third part of a tuple."""
    shapes = {i.name: i.shape for i in instructions}
    for i in instructions:
        if i.shape.startswith("("):
            shapes |= {f"{i.name}#{n}": part[0] for n, part in enumerate(_ARRAY.finditer(i.shape))}
    return shapes


def _users(instructions: list[Instruction]) -> dict[str, list[str]]:
    used: dict[str, list[str]] = {}
    for i in instructions:
        for o in i.operands:
            used.setdefault(o, []).append(i.operation)
    return used


def _exchange(
    i: Instruction, shapes: dict, mesh: Mapping[str, int], used: dict
) -> tuple[str, tuple[str, ...], float]:
    """(kind, mesh axes, bytes that a device sends in the usual ring algorithm) of a collective."""
    kind = i.operation.removesuffix("-start")
    size = sum(_size(shapes[o]) for o in i.operands)
    if kind == "collective-permute":
        pairs = re.findall(r"\{(\d+),(\d+)\}", i.rest)
        axes = axes_of([list(map(int, p)) for p in pairs], mesh)
        return kind, axes, size if axes else 0.0
    groups = replica_groups(i.rest, math.prod(mesh.values()))
    axes, n = axes_of(groups[:1], mesh), len(groups[0])
    if kind == "all-reduce" and used.get(i.name) and set(used[i.name]) <= {"dynamic-slice"}:
        # Each device uses only its part: the accelerators' compilers make one collective of the two.
        kind = "reduce-scatter"
    ring = {
        "all-gather": n - 1.0,
        "all-reduce": 2 * (n - 1) / n,
        "reduce-scatter": (n - 1) / n,
        "all-to-all": (n - 1) / n,
    }
    return kind, axes, size * ring[kind]


def axes_of(groups: list[list[int]], mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes along which the devices of a group differ."""
    sizes, names = tuple(mesh.values()), tuple(mesh)
    varied: set[str] = set()
    for group in groups:
        places = np.stack(np.unravel_index(group, sizes))
        varied |= {name for name, row in zip(names, places, strict=True) if len(set(row.tolist())) > 1}
    return tuple(name for name in names if name in varied)


def replica_groups(rest: str, n: int) -> list[list[int]]:
    """replica_groups in any of HLO's three notations."""
    if match := re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((\[[^)]*\))\))?,? ?\{([^}]*)\}", rest
    ):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", match[1])}
        ids = _iota(match[2]) if match[2] else np.arange(math.prod(sizes.values()))
        grid = ids.reshape(tuple(sizes.values()))
        over = [list(sizes).index(name) for name in re.findall(r"'(\w+)'", match[3])]
        kept = [a for a in range(len(sizes)) if a not in over]
        width = math.prod(grid.shape[a] for a in over)
        return grid.transpose(kept + over).reshape(-1, width).tolist()
    if match := re.search(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", rest):
        return _iota(match[2]).reshape(tuple(map(int, match[1].split(",")))).tolist()
    if match := re.search(r"replica_groups=\{(\{[\d,{}]+\})\}", rest):
        return [list(map(int, g.split(","))) for g in re.findall(r"\{([\d,]+)\}", match[1])]
    return [list(range(n))]


def _iota(text: str) -> np.ndarray:
    """[2,4]T(1,0): 0, 1, 2, … in this shape, its axes then exchanged; flat."""
    shape, order = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text).groups()  # type: ignore[union-attr]
    x = np.arange(math.prod(map(int, shape.split(",")))).reshape(tuple(map(int, shape.split(","))))
    return (x.transpose(tuple(map(int, order.split(",")))) if order else x).ravel()
