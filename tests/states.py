"""States of a run, compared bit for bit."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxmodels.paths import by_path


def leaves(state: Any) -> dict[str, np.ndarray]:
    """Every array of a state, its random key among them, by name."""
    plain = state._replace(key=jax.random.key_data(state.key))
    return {name: np.asarray(x) for name, x in by_path(plain).items()}


def same_bits(a: Any, b: Any) -> None:
    """Fails with the name of the first array that differs."""
    for name, x in leaves(a).items():
        assert x.tobytes() == leaves(b)[name].tobytes(), name
