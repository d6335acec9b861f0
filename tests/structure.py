"""The house in figures, read from the source: python tests/structure.py

A room is a module at the root of jaxmodels, or a folder there, one floor above the highest that it imports.
Imports inside functions count. test_structure.py holds the figures.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1] / "jaxmodels"

# What is read to know how a run comes about, in this order.
CORE = [
    *("task", "pipeline", "experiment", "keys", "paths", "step", "state"),
    *(f"training.{name}" for name in ("check", "schedule", "programs", "feed", "evaluate", "metrics")),
    *(f"training.{name}" for name in ("progress", "loop", "runner")),
]


def module_of(file: Path) -> str:
    """jaxmodels/data/order.py is data.order; jaxmodels/__init__.py is the empty name."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in sorted(ROOT.rglob("*.py"))}


def imported(module: str) -> Iterator[str]:
    """The modules of ours that a module imports, also in functions; not those for type checkers alone."""
    tree = ast.parse(MODULES[module].read_text())
    for_types = [
        n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    ]
    skipped = {id(node) for block in for_types for node in ast.walk(block)}
    for node in ast.walk(tree):
        names = []
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.partition(".")[0] == "jaxmodels":
                target = name.removeprefix("jaxmodels").removeprefix(".")
                while target not in MODULES:
                    target = target.rpartition(".")[0]
                yield target


def rooms() -> dict[str, set[str]]:
    """Each room with the rooms that it imports; without the package's own two modules, which reach all."""
    found: dict[str, set[str]] = {module.partition(".")[0]: set() for module in MODULES}
    for module in MODULES:
        room = module.partition(".")[0]
        found[room] |= {target.partition(".")[0] for target in imported(module)} - {room, ""}
    return {room: below for room, below in found.items() if room not in ("", "__main__")}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Rooms that import each other, directly or through others."""

    def reached(room: str) -> set[str]:
        seen: set[str] = set()
        todo = [*graph[room]]
        while todo:
            if (one := todo.pop()) not in seen:
                seen.add(one)
                todo += graph[one]
        return seen

    reach = {room: reached(room) for room in graph}
    tied = {frozenset(b for b in graph if b in reach[a] and a in reach[b]) for a in graph if a in reach[a]}
    return sorted(sorted(circle) for circle in tied)


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each room; rooms of a circle are on the same."""
    together = {room: next((c for c in circles(graph) if room in c), [room]) for room in graph}
    height: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in height:
            below = {b for r in together[room] for b in graph[r]} - {*together[room]}
            found = 1 + max((floor(b) for b in below), default=0)
            height.update(dict.fromkeys(together[room], found))
        return height[room]

    return {room: floor(room) for room in graph}


def lines_of_code(file: Path) -> int:
    """Lines that are neither empty, nor a comment, nor part of a docstring."""
    text = file.read_text()
    kept = {
        i for i, line in enumerate(text.splitlines(), 1) if line.strip() and not line.strip().startswith("#")
    }
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            kept -= {*range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    return len(kept)


def figures() -> dict[str, int]:
    """What test_structure.py holds, by name."""
    graph = rooms()
    height = floors(graph)
    return {
        "root modules": sum(
            "." not in m and m not in ("", "__main__") and MODULES[m].parent == ROOT for m in MODULES
        ),
        "floors": max(height.values()),
        "arrows up": sum(height[b] > height[a] for a in graph for b in graph[a]),
        "circles": len(circles(graph)),
        "core lines": sum(lines_of_code(MODULES[m]) for m in CORE if m in MODULES),
        "longest file": max(len(file.read_text().splitlines()) for file in MODULES.values()),
    }


def main() -> None:
    """Prints the figures, and the rooms by floor."""
    graph = rooms()
    height = floors(graph)
    for name, value in figures().items():
        print(f"{name:14} {value:6,}")
    for floor in range(max(height.values()), 0, -1):
        print(f"{floor:3}  {', '.join(sorted(room for room in height if height[room] == floor))}")
    for circle in circles(graph):
        print("circle:", ", ".join(circle))


if __name__ == "__main__":
    main()
