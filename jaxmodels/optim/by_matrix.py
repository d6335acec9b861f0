"""Which parameters are matrices, and how arrays of more dimensions are stacks of them.

Three dimensions are a stack of matrices, such as the layers of a scan; four are a convolution's kernel,
(height, width, inputs, outputs), or a stack of stacks where the path names experts. A fifth is a stack of
convolutions. What is left, vectors, embeddings and heads, has another direction, by default Adam's.
Dimensions: m rows (inputs), n columns (outputs).
"""

from __future__ import annotations

import re
from typing import Any

import jax
import optax

from jaxmodels.optim.optimizers import TABLES, VECTORS
from jaxmodels.paths import map_by_path

OTHERS = rf"{TABLES}|{VECTORS}"  # searched in lower-case paths: not treated as matrices
EXPERTS = r"(^|[/_])experts?(/|$)"


def stack_axes(name: str, ndim: int) -> int:
    """How many of an array's first axes are a stack."""
    if ndim <= 3 or re.search(EXPERTS, name.lower()):
        return max(0, ndim - 2)
    return ndim - 4


def as_matrices(name: str, x: jax.Array) -> jax.Array:
    """The array as (..., m, n)."""
    stack = stack_axes(name, x.ndim)
    return x.reshape(*x.shape[:stack], -1, x.shape[-1])


def by_matrix(direction: Any, rest: Any, others: str = OTHERS) -> optax.GradientTransformation:
    """direction for matrices and stacks of them, rest for vectors and for what has a path in others."""

    def kind(name, x):
        return "rest" if x.ndim < 2 or re.search(others, name.lower()) else "matrix"

    return optax.partition({"matrix": direction, "rest": rest}, lambda params: map_by_path(kind, params))
