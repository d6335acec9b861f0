"""The networks of MTCNN as github.com/timesler/facenet-pytorch holds them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.convert.family import Weight, conv, dense, pointwise, state_dict
from jaxmodels.models.mtcnn import MTCNN


def _weights(model: MTCNN) -> list[Weight]:
    n, found = len(model.channels), []
    for i in range(1, n + 1):
        found += [
            *conv(f"conv_{i}", f"conv{i}", bias=True),
            Weight(f"slope_{i}/slope", (f"prelu{i}.weight",)),
        ]
    if model.dense:
        found += [*dense("dense", f"dense{n + 1}"), Weight("slope/slope", (f"prelu{n + 1}.weight",))]
    heads = ("face", "edges", "points") if model.marks else ("face", "edges")
    for i, name in enumerate(heads, 1):
        found += dense(name, f"dense{n + 2}_{i}") if model.dense else pointwise(name, f"conv{n + 1}_{i}")
    return found


def _window(model: Any) -> tuple:
    """One window in three colours."""
    return (jax.ShapeDtypeStruct((1, model.size, model.size, 3), jnp.float32),)


FAMILIES = (state_dict(_weights, (MTCNN,), layout="facenet-pytorch", inputs=_window),)
