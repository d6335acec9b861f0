"""Which instances of a test belong to the suite, and which are left for `pytest -m thorough`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first(n: int, instances: Iterable[Any]) -> list[Any]:
    """All of them, of which those after the first n are thorough."""
    marked = [x if isinstance(x, tuple) else (x,) for x in instances]
    return [pytest.param(*x, marks=[pytest.mark.thorough] if i >= n else []) for i, x in enumerate(marked)]
