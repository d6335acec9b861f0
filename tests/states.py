"""States of a run, compared bit for bit."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def leaves(state: Any) -> dict[str, np.ndarray]:
    """Every array of a state, its random key among them, by name."""
    plain = state._replace(key=jax.random.key_data(state.key))
    return {
        jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(plain)
    }


def same_bits(a: Any, b: Any) -> None:
    """Fails with the name of the first array that differs."""
    for name, x in leaves(a).items():
        assert x.tobytes() == leaves(b)[name].tobytes(), name
