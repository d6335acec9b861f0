"""muP: one learning rate for all widths (arXiv:2203.03466, table 8, for Adam), as rules over parameter paths.

m is a model's width over that of a base, at which nothing changes. A rule says how a parameter's start, its
multiplier and its rate go with m; the model itself stays as it is, since multipliers are applied to its
parameters in every step.

                         start (standard deviation)    multiplier    rate of Adam
    inputs, vectors      1                             1             1
    hidden matrices      m^-1/2                        1             m^-1
    outputs              1                             m^-1          1

Attention's scale of 1 / d in place of 1 / sqrt(d) is a multiplier of the queries. The rules count from what
the models start with themselves: an MLP's kernels with 1 / sqrt(inputs), a transformer's with a constant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmodels.paths import map_by_path
from jaxmodels.task import Array, Params, Task


class Scaling(NamedTuple):
    """The powers of m by which a parameter's start, its multiplier and its rate are scaled."""

    start: float = 0.0
    multiplier: float = 0.0
    rate: float = 0.0


Rules = Sequence[
    tuple[str, Scaling]
]  # regular expressions, searched in paths; the first that is found counts

MLP_RULES: Rules = (
    (r"^hidden_0/", Scaling()),
    (r"^hidden_\d+/kernel$", Scaling(rate=-1)),
    (r"^head/kernel$", Scaling(start=0.5, multiplier=-1)),
)
_BLOCKS = (r"^blocks/(qkv|out|up|down)/kernel$", Scaling(start=-0.5, rate=-1))
# The last norm stands for an output that is tied to the embedding.
GPT_RULES: Rules = (_BLOCKS, (r"^norm/", Scaling(multiplier=-1)))
UNTIED_GPT_RULES: Rules = (_BLOCKS, (r"^head$", Scaling(multiplier=-1)))
VIT_RULES: Rules = (_BLOCKS, (r"^head/kernel$", Scaling(multiplier=-1)))


def mup(task: Task, rules: Rules, m: float, *, heads: int = 0, head_m: float | None = None) -> Task:
    """The task in muP; `rates` are the factors of its learning rates.

    m: width over the base's width. heads: of a transformer; 0: no attention. head_m: width of a head over
    that of the base's heads; None is m, for as many heads as the base has. Predictors and decoders get
    the multiplied parameters (Task.unwrap).
    """
    head_m = m if head_m is None else head_m

    def init(key, batch):
        params, extra = task.init(key, batch)
        return map_by_path(lambda name, x: x * m ** _scaling(rules, name).start, params), extra

    def multiplied(params: Params) -> Params:
        return map_by_path(lambda name, x: x * _multiplier(name, x, rules, m, heads, head_m), params)

    inner: Any = task.examine
    return task._replace(
        init=init,
        loss=lambda params, extra, batch, keys_B: task.loss(multiplied(params), extra, batch, keys_B),
        evaluate=lambda params, extra, batch: task.evaluate(multiplied(params), extra, batch),
        examine=None if inner is None else lambda params, *rest: inner(multiplied(params), *rest),
        unwrap=lambda params, extra: task.unwrap(multiplied(params), extra),
    )


def rates(rules: Rules, m: float) -> tuple[tuple[str, float], ...]:
    """The factors of Adam's rate by path, for optim.scaled."""
    return tuple((pattern, m**scaling.rate) for pattern, scaling in rules)


def _scaling(rules: Rules, name: str) -> Scaling:
    return next((scaling for pattern, scaling in rules if re.search(pattern, name)), Scaling())


def _multiplier(name: str, x: Array, rules: Rules, m: float, heads: int, head_m: float) -> Any:
    """Of one parameter; of queries, keys and values, which stand so for each head, that of the queries."""
    factor = m ** _scaling(rules, name).multiplier
    if not heads or not re.search(r"^blocks/qkv/", name):
        return jnp.asarray(factor, x.dtype)
    of_part = jnp.asarray([head_m**-0.5, 1.0, 1.0], x.dtype) * factor
    return jnp.tile(jnp.repeat(of_part, x.shape[-1] // (3 * heads)), heads)
