"""The arrows of DESIGN.md, read from the source: who in jaxmodels may import whom, and which libraries where."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[1] / "jaxmodels"

# What runs, shows and keeps an experiment. Its parts may import each other; none knows a model, a task or a data set.
RUNNER = [
    *(
        "runner",
        "programs",
        "evaluating",
        "signals",
        "saving",
        "feed",
        "diagnose",
        "console",
        "options",
        "folder",
        "loading",
        "commands",
        "verify",
        "checkpoint",
        "metrics",
        "trackers",
        "stopping",
    ),
    *("sweeps", "planning", "report", "generate", "decoding", "task", "experiment", "step", "parallel", "sharding", "axes"),
    *("processes", "cluster", "guard", "stall", "elastic", "launching", "templates", "safe_path", "terminal", "contracts"),
    *("watch", "profiling", "find_rate", "rate_curve", "find_batch", "doctor", "listing"),
    *("runs", "keys", "checking", "narrowing", "fingerprints", "traced", "knobs"),
]

# A module or a package, and what it may import of ours; the longest name that fits counts. An entry may be of the future.
ARROWS: dict[str, list[str]] = {
    "task": [],
    "axes": [],
    "sharding": ["axes"],
    "experiment": ["task"],
    "keys": [],
    "choices": [],
    "step": ["choices", "task", "keys", "contracts"],
    "adversarial": ["step", "task"],
    "parallel": ["task", "axes"],
    "runs": ["runs"],
    "checkpoint": ["task", "processes", "runs"],
    "cluster": [],
    "guard": ["cluster"],
    "processes": ["cluster", "guard"],
    "stall": [],
    "stopping": ["experiment", "processes"],
    "elastic": ["axes"],
    "launching": RUNNER,
    "templates": [],
    "metrics": ["task", "runs"],
    "trackers": ["metrics", "runs"],
    "optim": [],
    "tuning": ["optim"],
    "narrowing": [],
    "checking": ["task", "experiment", "narrowing"],
    "data": ["choices", "data", "narrowing"],
    "data.workers": ["data", "narrowing", "safe_path"],
    "data.tokens": ["data", "narrowing", "runs.files"],
    "data.tokenize": ["choices", "data", "narrowing", "runs.files"],
    "layers": ["choices", "layers", "axes"],
    "models": ["layers"],
    "tasks": [
        *("choices", "task", "axes", "keys"),
        *("tasks.apply", "tasks.cross_entropy", "tasks.boxes", "tasks.own_keys", "tasks.ranking", "tasks.requirements"),
    ],
    "convert": [
        *("convert", "models", "layers", "task", "tasks.language", "tasks.translate"),
        *("data.tokenizer", "data.tokenizer_settings", "data.json_file", "runs.files"),
    ],
    "convert.image": ["convert", "task", "tasks.classify", "data.draw", "data.images", "data.json_file"],
    "runner": RUNNER,
    "programs": RUNNER,
    "evaluating": RUNNER,
    "signals": RUNNER,
    "saving": RUNNER,
    "feed": RUNNER,
    "diagnose": RUNNER,
    "console": RUNNER,
    "options": RUNNER,
    "folder": RUNNER,
    "knobs": [],
    "loading": [*RUNNER, "data.learned"],
    "fingerprints": [*RUNNER, "data.fingerprint"],
    "traced": RUNNER,
    "verify": RUNNER,
    "commands": [*RUNNER, "convert", "data.pipeline"],
    "generate": RUNNER,
    "decoding": RUNNER,
    "sweeps": RUNNER,
    "planning": ["", *RUNNER, "layers.attention"],  # which attention is traced depends on the target
    "report": RUNNER,
    "watch": RUNNER,
    "find_rate": [*RUNNER, "optim"],
    "rate_curve": RUNNER,
    "find_batch": RUNNER,
    "doctor": RUNNER,
    "listing": ["console", "runs"],
    "profiling": RUNNER,
    "cli": ["", "cli", *RUNNER, "convert", "data.tokenize"],
    "__main__": ["cli", "guard", "hugepages"],
    "hugepages": [],
    "safe_path": [],
    "terminal": [],
    "contracts": ["experiment", "task"],
    "": ["commands"],  # jaxmodels/__init__.py
}

# A library, and the only parts of ours that may import it.
ONLY_IN = {"flax": ["models", "layers", "tasks", "convert"]}

# A part of ours, and the libraries that it must not import.
WITHOUT = {
    "data": ["jax", "flax", "optax", "orbax"],
    "optim": ["flax", "orbax", "grain"],
    "experiment": ["optax", "orbax", "grain"],
}

PRIVATE = ["jax._src", "jax.interpreters", "jaxlib"]
UNSAFE = ["pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"]
OUTSIDE = ["experiments", "benchmarks", "tests"]


class Import(NamedTuple):
    """One import of a dotted name."""

    name: str
    line: int
    lazy: bool  # inside a function


def within(name: str, parent: str) -> bool:
    return name == parent or (parent != "" and name.startswith(parent + "."))


def module_of(file: Path) -> str:
    """jaxmodels/data/order.py is data.order; jaxmodels/__init__.py is the empty name."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def exists(module: str) -> bool:
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports(tree: ast.Module, module: str, package: bool) -> Iterator[Import]:
    """Every import in the tree, also in functions, with relative ones spelled out."""
    lazy = {id(x) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for x in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) in lazy)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ["jaxmodels", *filter(None, module.split("."))]
                here = here[: len(here) - node.level + package]
                base = ".".join([*here, *filter(None, [base])])
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, id(node) in lazy)


def ours(name: str) -> str | None:
    """The module of ours that a dotted name means, without jaxmodels; None for somebody else's."""
    if not within(name, "jaxmodels"):
        return None
    module = name.removeprefix("jaxmodels").removeprefix(".")
    while module and not exists(module):
        module = module.rpartition(".")[0]  # the last part was a function or a class
    return module


def allowed(module: str) -> list[str] | None:
    """What the table says of the longest name that fits."""
    entries = [entry for entry in ARROWS if within(module, entry)]
    return ARROWS[max(entries, key=len)] if entries else None


def faults(source: str, module: str, package: bool = False) -> list[str]:
    """What in this source breaks a rule, one line each."""
    tree = ast.parse(source)
    found = []
    arrows = allowed(module)
    if arrows is None:
        return [f"{module} has no entry in ARROWS of tests/test_imports.py; add what DESIGN.md lets it import"]
    for name, line, _ in imports(tree, module, package):
        at = f"{module or '__init__'}:{line}: imports {name}"
        target = ours(name)
        if target is not None:
            if target != module and not any(within(target, arrow) for arrow in arrows):
                found.append(f"{at}; allowed of ours: {arrows}")
            continue
        for library, parts in ONLY_IN.items():
            if within(name, library) and not any(within(module, part) for part in parts):
                found.append(f"{at}; only {parts} may")
        for part, libraries in WITHOUT.items():
            if within(module, part) and any(within(name, library) for library in libraries):
                found.append(f"{at}; {part} does without {libraries}")
        for banned, why in ((PRIVATE, "private to JAX"), (UNSAFE, "runs what it reads"), (OUTSIDE, "outside the library")):
            if any(within(name, b) for b in banned):
                found.append(f"{at}: {why}")
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if text in PRIVATE:
            found.append(f"{module}:{node.lineno}: uses {text}, private to JAX")
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
                found.append(f"{module}:{node.lineno}: calls {node.func.id}")
            if any(k.arg == "allow_pickle" and getattr(k.value, "value", True) is not False for k in node.keywords):
                found.append(f"{module}:{node.lineno}: lets NumPy unpickle")
    return found


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_import_is_an_arrow_of_the_design(file):
    assert not faults(file.read_text(), module_of(file), file.name == "__init__.py")


def test_starting_the_command_line_imports_only_the_standard_library():
    """Following imports at the top of modules from cli; those inside functions wait until a command needs them."""
    todo, seen, outside = ["", "cli"], set(), []
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        file = ROOT.joinpath(*module.split(".")) if module else ROOT
        package = file.is_dir()
        file = file / "__init__.py" if package else file.with_suffix(".py")
        if not file.is_file():  # cli.py comes after the library
            continue
        for name, line, lazy in imports(ast.parse(file.read_text()), module, package):
            if lazy:
                continue
            if (target := ours(name)) is not None:
                todo += [target, target.rpartition(".")[0]]
            elif name.partition(".")[0] not in sys.stdlib_module_names:
                outside.append(f"{module}:{line}: {name}")
    assert not outside


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("models.mlp", "from jaxmodels.models.cnn import CNN"),
        ("models.mlp", "from .cnn import CNN"),
        ("models.mlp", "from . import cnn"),
        ("models.mlp", "from jaxmodels import optim"),
        ("tasks.classify", "import jaxmodels.models.mlp"),
        ("tasks.classify", "def f():\n    from jaxmodels.tasks.regress import regress"),
        ("task", "import jaxmodels.step"),
        ("step", "from jaxmodels import parallel"),
        ("runner", "from jaxmodels.optim import adam"),
        ("runner", "from jaxmodels.cli import main"),
        ("feed", "from jaxmodels.data.order import Order"),
        ("step", "import flax.linen as nn"),
        ("data.order", "import jax.numpy as jnp"),
        ("data.order", "from jaxmodels.task import Mean"),
        ("models.mlp", "from experiments import digits"),
        ("runner", "from jax._src import core"),
        ("runner", "import jax\njax._src.core.Tracer"),
        ("runner", "from jax import interpreters"),
        ("runner", "import jaxlib"),
        ("checkpoint", "import pickle"),
        ("loading", "eval('1')"),
        ("data.files", "np.load(path, allow_pickle=True)"),
        ("unheard_of", ""),
    ],
)
def test_a_forbidden_arrow_is_found(module, source):
    assert faults(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("models.mlp", "import flax.linen as nn\nfrom jaxmodels.layers.dropout import dropout"),
        ("tasks.classify", "from jaxmodels.tasks.apply import apply\nfrom jaxmodels.task import Task"),
        ("data.pipeline", "from jaxmodels.data.order import Order\nimport numpy"),
        ("checkpoint", "from jaxmodels.task import Mean\nnp.load(path, allow_pickle=False)"),
        ("runner", "from jaxmodels import parallel, step"),
    ],
)
def test_an_arrow_of_the_design_passes(module, source):
    assert not faults(source, module)
