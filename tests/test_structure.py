"""The house in figures; `python tests/structure.py` prints them."""

import pytest
from structure import CORE, MODULES, circles, figures, imported

pytestmark = pytest.mark.fast

# Inside training: a module imports only from later lines. Whatever is named nowhere here is imported by any.
LEVELS = [
    ["runner"],
    ["loop", "dispatch_size"],
    ["evaluate", "programs"],
    ["failures", "check", "progress"],
    ["feed", "metrics", "schedule"],
]


def test_the_house_stays_as_it_was_drawn():
    found = figures()
    assert found["root modules"] <= 12
    assert found["floors"] <= 11
    assert (found["arrows up"], found["circles"]) == (0, 0)
    assert found["core lines"] < 1200
    assert found["longest file"] <= 400


def test_the_core_is_there_to_be_read():
    assert not [name for name in CORE if name not in MODULES]


def test_training_imports_downwards_and_in_no_circle():
    level = {f"training.{name}": depth for depth, names in enumerate(LEVELS) for name in names}
    of_training = [module for module in MODULES if module.startswith("training.")]
    graph = {m: {t for t in imported(m) if t in of_training and t != m} for m in of_training}
    up = [(m, t) for m in graph for t in graph[m] if m in level and t in level and level[t] <= level[m]]
    assert not up
    assert not circles(graph)
