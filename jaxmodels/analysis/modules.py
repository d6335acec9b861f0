"""A model's modules: shapes, parameters and FLOPs, from a jaxpr of abstract shapes; nothing is allocated.

Parameters and operations meet by name: flax gives the parameters of a module, and the operations traced in
it, one path.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import jax

from jaxmodels.analysis import flops
from jaxmodels.analysis.jaxpr import module_path, opened, used_equations
from jaxmodels.experiment import Experiment
from jaxmodels.layers.attention import lowered_for
from jaxmodels.paths import by_path
from jaxmodels.state import batch_shapes, initial

_OPAQUE = ("pallas_call", "shard_map", "while", "cond")  # their bodies are counted, not looked into


class Module(NamedTuple):
    """One module that has parameters or does products; the rest of the task has the empty path."""

    path: str
    parameters: dict[str, tuple[int, ...]]  # name -> shape; stacked ones have all layers' first
    output: tuple[int, ...] | None  # for one example, of one layer
    flops: float  # of the forward pass, for one example

    @property
    def size(self) -> int:
        """Numbers in its parameters."""
        return sum(math.prod(shape) for shape in self.parameters.values())


def modules(experiment: Experiment) -> list[Module]:
    """The modules in the order in which one example's evaluation runs them, then those that it does
    not run.
    """
    shapes = jax.eval_shape(lambda: initial(experiment))
    parameters: dict[str, dict[str, tuple[int, ...]]] = {}
    for path, leaf in by_path(shapes.params).items():
        module, _, name = path.rpartition("/")
        parameters.setdefault(module, {})[name] = leaf.shape
    batch = batch_shapes(experiment.train, 1)
    with lowered_for("definition"):
        traced = jax.make_jaxpr(experiment.task.evaluate)(shapes.params, shapes.extra, batch)
    work: dict[str, list[Any]] = {}  # path -> [FLOPs, shape of the newest output]
    _walk(traced.jaxpr, "", 1, work)
    paths = [path for path in work if work[path][0] or path in parameters]
    paths += [path for path in parameters if path not in work]
    return [Module(path, parameters.get(path, {}), *_done(work.get(path))) for path in paths]


def _done(work: list[Any] | None) -> tuple[tuple[int, ...] | None, float]:
    return (None, 0.0) if work is None else (work[1], work[0])


def _walk(jaxpr: Any, prefix: str, times: int, work: dict[str, list[Any]]) -> None:
    for eqn in used_equations(jaxpr):
        whole, path = module_path(prefix, eqn)
        inner = [eqn.params[key] for key in ("call_jaxpr", "jaxpr", "fun_jaxpr") if key in eqn.params]
        if inner and eqn.primitive.name not in _OPAQUE:
            trips = eqn.params["length"] if eqn.primitive.name == "scan" else 1
            _walk(opened(inner[0]), whole, times * trips, work)
            continue
        found = work.setdefault(_flax(path), [0.0, None])
        found[0] += times * flops.of_equation(eqn)
        found[1] = tuple(eqn.outvars[0].aval.shape)[1:] if eqn.outvars else found[1]


def _flax(path: str) -> str:
    """blocks/qkv, the parameters' path, from GPT/blocks/blocks/qkv: without the model.

    A scan is named twice.
    """
    return "/".join([b for a, b in pairwise(path.split("/")) if a != b])
