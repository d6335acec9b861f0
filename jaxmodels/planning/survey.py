"""What a search must know of an experiment before it chooses a mesh; nothing is compiled."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from jaxmodels.analysis.jaxpr import scan_counts
from jaxmodels.analysis.step_flops import step_flops
from jaxmodels.experiment import Experiment
from jaxmodels.layers.attention import lowered_for
from jaxmodels.parallel import axes, rules
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.planning.lowering import no_progress, state_sizes
from jaxmodels.runs import experiment_file
from jaxmodels.state import abstract_state, batch_shapes, make_step


def survey(request: dict[str, Any], progress: Callable[[str], None] = no_progress) -> dict[str, Any]:
    """Sizes of the state, FLOPs, bytes of saved activations, number of layers, and what can be split.

    "kept_bytes": that the forward pass saves for the backward pass. "splits": by mesh axis, (parameters that
    it splits, what its size must divide); the context axis splits no parameters, but the positions of a text.
    """
    file = experiment_file.load(request["file"])
    experiment = file.build(experiment_file.make_config(file, request["knobs"]))
    options = {name: request[name] for name in ("accumulate", "precision", "remat")}
    progress("tracing the step")
    abstract, _ = abstract_state(experiment, make_mesh("data=1", jax.devices()[:1]))
    advance = make_step(experiment, accumulate=request["accumulate"], precision=request["precision"])
    with lowered_for("cpu"), axes.traced(None, request["remat"]):  # its attention saves what a kernel would
        jaxpr = jax.make_jaxpr(advance)(abstract, batch_shapes(experiment.train)).jaxpr
    kept_bytes, layers = _scans(jaxpr)
    splits = {**_context_split(experiment), **rules.splitting(abstract.params, experiment.rules)}
    return {
        "batch": experiment.train.batch,
        "steps": experiment.steps,
        "state": state_sizes(abstract),
        "flops": step_flops(experiment, abstract, **options)._asdict(),
        "kept_bytes": kept_bytes,
        "layers": splits.get(axes.PIPELINE, (0, layers))[1],
        "splits": splits,
    }


def _context_split(experiment: Experiment) -> dict[str, tuple[int, int]]:
    """Of texts only: a batch of arrays with two dimensions, examples and positions."""
    shapes = [x.shape for x in jax.tree.leaves(batch_shapes(experiment.train))]
    lengths = [shape[1] for shape in shapes if len(shape) > 1]
    return {axes.CONTEXT: (0, math.gcd(*lengths))} if lengths and max(map(len, shapes)) == 2 else {}


def _scans(jaxpr: Any) -> tuple[float, int]:
    """(bytes that a step's scans stack up, without arrays of a parameter's shape; trips of the longest)."""
    parameter_shapes = {v.aval.shape for v in jaxpr.invars}
    kept_bytes, layers = 0.0, 1
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "scan":
            _, carries = scan_counts(eqn)
            layers = max(layers, eqn.params["length"])
            stacked = [v.aval for v in eqn.outvars[carries:] if hasattr(v.aval.dtype, "itemsize")]
            activations = [x for x in stacked if x.shape not in parameter_shapes]
            kept_bytes += sum(math.prod(x.shape) * x.dtype.itemsize for x in activations)
        for inner in (eqn.params.get("jaxpr"), eqn.params.get("call_jaxpr")):
            if inner is not None and eqn.primitive.name not in ("scan", "pallas_call"):
                more_bytes, length = _scans(getattr(inner, "jaxpr", inner))
                kept_bytes, layers = kept_bytes + more_bytes, max(layers, length)
    return kept_bytes, layers
