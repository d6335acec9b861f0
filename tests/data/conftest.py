"""Real data, where there is some: in $JAXMODELS_DATA, else in ../shared/data beside the repository."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def real():
    """real(name): the folder of a data set; skips the test where it is absent."""
    root = Path(os.environ.get("JAXMODELS_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data").resolve()

    def find(name):
        if not (root / name).is_dir():
            pytest.skip(f"no real data: {root / name} is absent; set JAXMODELS_DATA to the folder that holds {name}")
        return root / name

    return find
