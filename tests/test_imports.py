"""The arrows of the design, read from the source: who may import whom, and which libraries where."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[1] / "jaxmodels"

# Contracts and what everything may stand on.
CORE = [
    "task",
    "pipeline",
    "experiment",
    "interfaces",
    "keys",
    "paths",
    "choices",
    "step",
    "state",
    "options",
    "console",
]
WINGS = ["analysis", "training", "planning", "sweeps", "report", "bench", "decoding", "serving"]

# A module or a package, and what it may import of ours; the longest name that fits counts.
ARROWS: dict[str, list[str]] = {
    "task": [],
    "pipeline": [],
    "interfaces": [],
    "keys": [],
    "paths": [],
    "choices": [],
    "console": [],
    "options": ["choices"],
    "experiment": ["task", "pipeline", "interfaces"],
    "step": ["task", "keys", "paths", "choices"],
    "alternating": ["step", "task", "keys"],
    "state": ["choices", "step", "experiment", "parallel", "task", "pipeline", "keys"],
    "optim": ["optim", "paths"],
    "launch": ["launch", "console"],
    "parallel": ["parallel", "launch", "paths", "task"],
    "runs": ["", "runs", *CORE, "parallel", "launch"],
    "analysis": ["analysis", *CORE, "parallel", "runs", "launch.exit_statuses", "layers.attention"],
    "training": ["training", *CORE, "analysis", "parallel", "runs", "launch", "data.narrowing"],
    "planning": ["planning", "", *CORE, "analysis", "parallel", "runs", "launch", "layers.attention"],
    "sweeps": ["sweeps", *CORE, "training", "analysis", "parallel", "runs", "launch", "decoding"],
    "bench": ["bench", *CORE, "analysis", "parallel", "runs", "layers.attention"],
    "bench.suite": ["", *CORE, "models", "tasks", "optim", "data"],
    "report": ["report", *CORE, "training", "analysis", "parallel", "runs", "sweeps.statistics", "scores"],
    "decoding": ["decoding", "task", "interfaces", "keys", "choices", "paths", "layers.row_adapters"],
    "data": ["data", "pipeline", "choices", "runs.files", "runs.learned"],
    "data.workers": ["data", "pipeline", "launch.safe_path"],
    "layers": ["layers", "choices", "keys", "parallel.axes"],
    "models": ["layers"],
    "scores": ["scores"],
    "tasks": [
        *("scores", "task", "interfaces", "keys", "paths", "choices", "parallel.axes"),
        *(
            "tasks.apply",
            "tasks.autoencode",
            "tasks.contrastive_divergence",
            "tasks.cross_entropy",
            "tasks.ctc_decoding",
            "tasks.boxes",
            "tasks.keys",
            "tasks.gaussian",
            "tasks.negative_binomial",
            "tasks.student_t",
            "tasks.ranking",
            "tasks.requirements",
        ),
    ],
    "convert": [
        "convert",
        "models",
        "layers",
        "tasks",
        "task",
        "interfaces",
        "paths",
        "data.formats",
        "runs.files",
    ],
    "inference": [
        *("inference", *CORE, "parallel", "runs", "convert", "data"),
        *("training.check_batches", "launch.exit_statuses", "decoding.adapters", "speech"),
    ],
    "speech": [
        *("speech", "choices", "interfaces", "keys", "layers.mel", "decoding"),
    ],
    "serving": [
        *("serving", *CORE, "decoding", "inference", "layers.kv_cache", "layers.slot_cache"),
        *("data.formats.json_file", "runs.files", "runs.png", "launch.exit_statuses"),
        *("data.formats.audio_file", "speech"),
    ],
    "export": [
        *("export", "inference", "interfaces", "task", "paths", "runs.files", "runs.learned", "runs.png"),
        *("runs.metrics_file", "convert", "data.formats", "layers.attention", "analysis.jaxpr"),
    ],
    "commands": [
        "",
        "commands",
        "export",
        *CORE,
        *WINGS,
        "inference",
        "serving",
        "speech",
        "convert",
        "parallel",
        "runs",
        "launch",
        "data",
        "optim",
    ],
    "cli": ["", "cli", "commands", *CORE, *WINGS, "convert", "parallel", "runs", "launch"],
    "__main__": ["cli", "launch"],
    "": [],  # jaxmodels/__init__.py
}

# A library, and the only parts of ours that may import it.
ONLY_IN = {"flax": ["models", "layers", "tasks", "convert", "export"]}

# A part of ours, and the libraries that it must not import.
WITHOUT = {
    "data": ["jax", "flax", "optax", "orbax"],
    "optim": ["flax", "orbax", "grain"],
    "experiment": ["optax", "orbax", "grain"],
    "pipeline": ["jax", "flax", "optax", "orbax", "grain"],
}

PRIVATE = ["jax._src", "jax.interpreters", "jaxlib"]
UNSAFE = ["pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"]
OUTSIDE = ["experiments", "benchmarks", "tests"]


class Import(NamedTuple):
    """One import of a dotted name."""

    name: str
    line: int
    lazy: bool  # inside a function, or only for type checkers


def within(name: str, parent: str) -> bool:
    return name == parent or (parent != "" and name.startswith(parent + "."))


def module_of(file: Path) -> str:
    """jaxmodels/data/order.py is data.order; jaxmodels/__init__.py is the empty name."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def exists(module: str) -> bool:
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def deferred(scope: ast.AST) -> bool:
    """Whether what stands in this scope does not run when its module is imported."""
    if isinstance(scope, ast.If):
        return ast.unparse(scope.test) == "TYPE_CHECKING"
    return isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef)


def imports(tree: ast.Module, module: str, package: bool) -> Iterator[Import]:
    """Every import in the tree, also in functions, with relative ones spelled out."""
    lazy = {id(x) for scope in ast.walk(tree) if deferred(scope) for x in ast.walk(scope)}
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
        return [
            f"{module} has no entry in ARROWS of tests/test_imports.py; add what DESIGN.md lets it import"
        ]
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
        for banned, why in (
            (PRIVATE, "private to JAX"),
            (UNSAFE, "runs what it reads"),
            (OUTSIDE, "outside the library"),
        ):
            if any(within(name, b) for b in banned):
                found.append(f"{at}: {why}")
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if text in PRIVATE:
            found.append(f"{module}:{node.lineno}: uses {text}, private to JAX")
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
                found.append(f"{module}:{node.lineno}: calls {node.func.id}")
            if any(
                k.arg == "allow_pickle" and getattr(k.value, "value", True) is not False
                for k in node.keywords
            ):
                found.append(f"{module}:{node.lineno}: lets NumPy unpickle")
    return found


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_import_is_an_arrow_of_the_design(file):
    assert not faults(file.read_text(), module_of(file), file.name == "__init__.py")


def test_starting_the_command_line_imports_only_the_standard_library():
    """Imports inside functions wait until a command needs them."""
    todo, seen, outside = (
        ["", "cli", "cli.planning", "cli.serving", "cli.speech", "cli.trained", "cli.training"],
        set(),
        [],
    )
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
        ("training.runner", "from jaxmodels.optim import adam"),
        ("training.runner", "from jaxmodels.cli import main"),
        ("training.feed", "from jaxmodels.data.order import Order"),
        ("step", "import flax.linen as nn"),
        ("data.order", "import jax.numpy as jnp"),
        ("data.order", "from jaxmodels.task import Mean"),
        ("models.mlp", "from experiments import digits"),
        ("training.runner", "from jax._src import core"),
        ("training.runner", "import jax\njax._src.core.Tracer"),
        ("training.runner", "from jax import interpreters"),
        ("training.runner", "import jaxlib"),
        ("runs.checkpoint", "import pickle"),
        ("runs.experiment_file", "eval('1')"),
        ("data.formats.tables", "np.load(path, allow_pickle=True)"),
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
        ("runs.checkpoint", "from jaxmodels.task import Mean\nnp.load(path, allow_pickle=False)"),
        ("training.runner", "from jaxmodels import parallel, step"),
    ],
)
def test_an_arrow_of_the_design_passes(module, source):
    assert not faults(source, module)
