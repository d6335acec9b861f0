"""Columns of a table as vectors: numbers, categories, and what is missing.

    number   linear      x w + b (arXiv:2106.11959, section 3.3)
             piecewise   how far x has come in each bin, times a matrix (arXiv:2203.05556, section 3.2)
             periodic    sines and cosines of x at learned frequencies, a matrix and ReLU (section 3.3)
    category             the vector of its level, of which b is a part
    missing              a vector of its own: the number beside its flag is not read

Dimensions: B batch, F features, N columns, M those of one kind, D width, Q bins, P frequencies, K levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import choices
from jaxmodels.layers.model import Model

Numbers = Literal["linear", "piecewise", "periodic"]


class Field(NamedTuple):
    """The features that belong to one column of a table."""

    kind: Literal["number", "category"]
    width: int = 1
    """Of a number 1, or 2 with a feature that is 1 where it is missing; of a category its levels, one-hot."""
    edges: tuple[float, ...] = ()
    """Of a number's bins, for "piecewise"; see bins_of."""


class TableEmbedding(Model):
    """Maps the features of rows to a vector for each column."""

    fields: Sequence[Field]  # in the order of the features
    width: int
    numbers: Numbers = "linear"
    frequencies: int = 48  # for "periodic"
    frequency: float = 0.1  # the deviation of the first frequencies, which matters most
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def __call__(self, x_BF: jax.Array) -> jax.Array:
        """Vectors BND of the columns in their order."""
        for field in self.fields:
            choices.check("Field", "kind", field.kind, Literal["number", "category"])
        first_N = self._first(x_BF)
        number_N = [n for n, field in enumerate(self.fields) if field.kind == "number"]
        vectors: dict[int, jax.Array] = {}
        if number_N:
            value_BM, missing_BM = self._values(x_BF, number_N, first_N)
            y_BMD = self._embedded(value_BM, [self.fields[n].edges for n in number_N])
            with_flag = [m for m, n in enumerate(number_N) if self.fields[n].width == 2]
            if with_flag:
                own_MD = self.param("missing", _within(self.width), (len(with_flag), self.width))
                own_MD = (
                    jnp.zeros(y_BMD.shape[1:], y_BMD.dtype)
                    .at[np.array(with_flag)]
                    .set(own_MD.astype(y_BMD.dtype))
                )
                y_BMD = jnp.where(missing_BM[..., None], own_MD, y_BMD)
            vectors |= {n: y_BMD[:, m] for m, n in enumerate(number_N)}
        for n, field in enumerate(self.fields):
            if field.kind == "category":
                level_BK = x_BF[:, first_N[n] : first_N[n] + field.width]
                table = nn.Dense(
                    self.width,
                    use_bias=False,
                    kernel_init=_within(self.width),
                    dtype=self.dtype,
                    name=f"category_{n}",
                )
                vectors[n] = table(level_BK)
        return jnp.stack([vectors[n] for n in range(len(self.fields))], 1)

    def _first(self, x_BF: jax.Array) -> list[int]:
        """The first feature of each column."""
        widths = [field.width for field in self.fields]
        if x_BF.ndim != 2 or x_BF.shape[1] != sum(widths) or not widths:
            raise ValueError(
                f"TableEmbedding: got features of the shape {x_BF.shape} for columns of {sum(widths)} "
                "features; expected (batch, as many). Give a Field for each column."
            )
        for field in self.fields:
            most = 2 if field.kind == "number" else field.width
            if not 1 <= field.width <= most or (self.numbers == "piecewise" and not _has_bins(field)):
                raise ValueError(
                    f"TableEmbedding: got {field}; expected 1 or 2 features of a number, 1 or more of a "
                    'category, and for "piecewise" two rising edges or more of each number. Correct it.'
                )
        return np.cumsum([0, *widths[:-1]]).tolist()

    def _values(
        self, x_BF: jax.Array, number_N: Sequence[int], first_N: Sequence[int]
    ) -> tuple[jax.Array, jax.Array]:
        """The numbers, 0 where they are missing, and where that is."""
        value_BM = x_BF[:, np.array([first_N[n] for n in number_N])]
        flags = [
            x_BF[:, first_N[n] + 1] > 0 if self.fields[n].width == 2 else jnp.zeros(x_BF.shape[0], bool)
            for n in number_N
        ]
        missing_BM = jnp.stack(flags, 1)
        return jnp.where(missing_BM, 0, value_BM), missing_BM

    def _embedded(self, x_BM: jax.Array, edges: Sequence[tuple[float, ...]]) -> jax.Array:
        """Vectors of numbers."""
        M, D = x_BM.shape[1], self.width
        if self.numbers == "linear":
            kernel_MD = self.param("kernel", _within(D), (M, D))
            bias_MD = self.param("bias", _within(D), (M, D))
            dtype = self.dtype or jnp.result_type(x_BM, kernel_MD)
            return x_BM.astype(dtype)[..., None] * kernel_MD.astype(dtype) + bias_MD.astype(dtype)
        if self.numbers == "piecewise":
            encoded_BMQ = piecewise_linear(x_BM, edges)
            bins = encoded_BMQ.shape[-1]
            kernel_MQD = self.param("kernel", _within(bins), (M, bins, D))
            bias_MD = self.param("bias", _within(bins), (M, D))
            return _products(encoded_BMQ, kernel_MQD, bias_MD, self.dtype)
        P, deviation = self.frequencies, self.frequency
        frequency_MP = self.param("frequency", nn.initializers.normal(deviation), (M, P))
        # Angles stay in float32: in 16 bits those of high frequencies are noise.
        angle_BMP = 2 * jnp.pi * frequency_MP.astype(jnp.float32) * x_BM.astype(jnp.float32)[..., None]
        waves_BMQ = jnp.concatenate([jnp.cos(angle_BMP), jnp.sin(angle_BMP)], -1)
        kernel_MQD = self.param("kernel", _within(2 * P), (M, 2 * P, D))
        bias_MD = self.param("bias", _within(2 * P), (M, D))
        dtype = self.dtype or jnp.result_type(x_BM, kernel_MQD)
        return nn.relu(_products(waves_BMQ.astype(dtype), kernel_MQD, bias_MD, dtype))


def piecewise_linear(x_BM: jax.Array, edges: Sequence[tuple[float, ...]]) -> jax.Array:
    """(x - lower) / (upper - lower) of every bin of each column, BMQ: 1 in the bins below x and 0 above
    (arXiv:2203.05556, equation 1). The first bin has no lower limit, and the last no upper one.

    edges: of each column; one with fewer bins than another has zeros behind its own.
    """
    bins = max(map(len, edges)) - 1
    low_MQ, high_MQ = np.zeros((2, len(edges), bins), np.float32)
    least_MQ, most_MQ = np.zeros((2, len(edges), bins), np.float32)
    high_MQ += 1
    for m, edge in enumerate(edges):
        own = len(edge) - 1
        low_MQ[m, :own], high_MQ[m, :own], most_MQ[m, :own] = edge[:-1], edge[1:], 1
        least_MQ[m, 0], most_MQ[m, own - 1] = -np.inf, np.inf
    share_BMQ = (x_BM.astype(jnp.float32)[..., None] - low_MQ) / (high_MQ - low_MQ)
    return jnp.clip(share_BMQ, least_MQ, most_MQ).astype(x_BM.dtype)


def bins_of(train_N: np.ndarray, bins: int) -> tuple[float, ...]:
    """The edges of so many bins with equally many training values each (arXiv:2203.05556, section 3.2.1).

    Equal edges are one: a column of few values has fewer bins. nan is missing.
    """
    value_N = np.asarray(train_N, np.float64)
    value_N = value_N[~np.isnan(value_N)]
    edges = (
        np.unique(np.quantile(value_N, np.linspace(0, 1, bins + 1)).astype(np.float32))
        if len(value_N)
        else ()
    )
    if bins < 1 or len(edges) < 2:
        raise ValueError(
            f"bins_of: got {bins} bins for {len(value_N):,} values, {len(np.unique(value_N)):,} different "
            "ones; expected 1 bin or more and two values that differ. Leave the column out."
        )
    return tuple(map(float, edges))


def _has_bins(field: Field) -> bool:
    return field.kind == "category" or (len(field.edges) > 1 and bool((np.diff(field.edges) > 0).all()))


def _products(
    x_BMQ: jax.Array, kernel_MQD: jax.Array, bias_MD: jax.Array, dtype: jnp.dtype | None
) -> jax.Array:
    """Of each column with its own matrix."""
    x_BMQ, kernel_MQD, bias_MD = nn.dtypes.promote_dtype(x_BMQ, kernel_MQD, bias_MD, dtype=dtype)
    return jnp.einsum("BMQ,MQD->BMD", x_BMQ, kernel_MQD) + bias_MD


def _within(width: int) -> nn.initializers.Initializer:
    """Uniform, within 1 / √width, as in the authors' code."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -(width**-0.5), width**-0.5)

    return init
