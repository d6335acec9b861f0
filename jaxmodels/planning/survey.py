"""What a search has to know of an experiment before it has chosen a mesh: nothing is compiled."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from jaxmodels.analysis.nonfinite import scanned
from jaxmodels.experiment import Experiment
from jaxmodels.layers.attention import lowered_for
from jaxmodels.parallel import axes, rules
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.planning.lowering import counts, sizes_of, step_of
from jaxmodels.runs import experiment_file
from jaxmodels.state import abstract_state, batch_shapes


def survey(request: dict[str, Any], say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Sizes of the state, FLOPs, bytes that the forward pass keeps for the backward one, layers, and what can be split.

    "splits": by axis (parameters that it splits, what its size must divide); of context the places of a text,
        and none.
    """
    file = experiment_file.load(request["file"])
    experiment = file.build(experiment_file.make_config(file, request["knobs"]))
    say("tracing the step")
    abstract, _ = abstract_state(experiment, make_mesh("data=1", jax.devices()[:1]))
    counted = counts(experiment, request, abstract)
    with lowered_for("cpu"), axes.traced(None, request["remat"]):  # whose attention keeps what a kernel would
        jaxpr = jax.make_jaxpr(step_of(experiment, request))(abstract, batch_shapes(experiment.train)).jaxpr
    kept, layers = _scans(jaxpr)
    splits = {**_context(experiment), **rules.splitting(abstract.params, experiment.rules)}
    return {
        "batch": experiment.train.batch,
        "steps": experiment.steps,
        "state": sizes_of(abstract),
        "flops": counted,
        "kept_bytes": kept,
        "layers": splits.get(axes.PIPELINE, (0, layers))[1],
        "splits": splits,
    }


def _context(experiment: Experiment) -> dict[str, tuple[int, int]]:
    """Of texts alone: arrays of two dimensions, examples and places."""
    shapes = [x.shape for x in jax.tree.leaves(batch_shapes(experiment.train))]
    places = [shape[1] for shape in shapes if len(shape) > 1]
    return {axes.CONTEXT: (0, math.gcd(*places))} if places and max(map(len, shapes)) == 2 else {}


def _scans(jaxpr: Any) -> tuple[float, int]:
    """(bytes of what the scans of the step stack up, without that which has a parameter's shape; trips of the longest)."""
    shapes = {v.aval.shape for v in jaxpr.invars}
    kept, layers = 0.0, 1
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "scan":
            _, carries = scanned(eqn)
            layers = max(layers, eqn.params["length"])
            kept += sum(
                math.prod(v.aval.shape) * v.aval.dtype.itemsize
                for v in eqn.outvars[carries:]
                if v.aval.shape not in shapes and hasattr(v.aval.dtype, "itemsize")
            )
        for inner in (eqn.params.get("jaxpr"), eqn.params.get("call_jaxpr")):
            if inner is not None and eqn.primitive.name not in ("scan", "pallas_call"):
                more, length = _scans(getattr(inner, "jaxpr", inner))
                kept, layers = kept + more, max(layers, length)
    return kept, layers
