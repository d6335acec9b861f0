"""What a training step asks for, which no clock is needed for: compared with the table in counts.json.

    python benchmarks/counts.py             names what has grown, and ends with status 1 where something has
    python benchmarks/counts.py --write     makes the table anew; its diff belongs into the commit

For each model of tests/tiny.py, from the jaxpr of its step on one of two devices, before any compiler's
optimization: FLOPs of products; operations by kind, a loop's as often as it runs, and the bytes of their
results; collectives and their bytes; transfers between host and device; compilations in a training, which
are one where a step gives back the types that it takes. Of a few models also the collectives of four devices
that share the parameters, as XLA partitions the program; of a whole run, what JAX compiles and how many
arrays are read.

JAX's versions write sums, masks and random numbers in different elementwise operations, so these have a
margin; everything else is exact.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_name("counts.json")
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jax  # noqa: E402
import optax  # noqa: E402
from files import tiny_mlp  # noqa: E402
from tiny import TINY, Tiny  # noqa: E402

import jaxmodels  # noqa: E402
from jaxmodels.analysis import flops, hlo  # noqa: E402
from jaxmodels.analysis.jaxpr import module_path, opened, used_equations  # noqa: E402
from jaxmodels.layers.attention import lowered_for  # noqa: E402
from jaxmodels.parallel import rules  # noqa: E402
from jaxmodels.parallel.compile import compile_step  # noqa: E402
from jaxmodels.parallel.mesh import make_mesh  # noqa: E402
from jaxmodels.parallel.placement import split_positions  # noqa: E402
from jaxmodels.planning.lowering import partition  # noqa: E402
from jaxmodels.step import init, make_step  # noqa: E402
from jaxmodels.training.loop import Pending  # noqa: E402

AXIS, DEVICES = "devices", 2
MARGIN = {"elementwise": (1.2, 1.5)}  # times the table's count and bytes; 1 for everything else
SHARED = ("mlp-dropout", "gpt-dropout")  # whose step is also partitioned over four devices
KINDS = {
    "dot": "dot_general ragged_dot_general",
    "convolution": "conv_general_dilated",
    "gather": "gather dynamic_slice",
    "scatter": "scatter scatter-add scatter_add scatter-mul scatter_mul dynamic_update_slice",
    "sort": "sort top_k approx_top_k",
    "transpose": "transpose rev",
    "concatenate": "concatenate tile",
    "reduce": "reduce reduce_sum reduce_max reduce_min reduce_and reduce_or reduce_prod argmax argmin",
    "window": "reduce_window_sum reduce_window_max select_and_scatter_add cumsum cummax cumprod",
    "transcendental": "exp exp2 expm1 log log1p tanh logistic erf erfc erf_inv sin cos pow sqrt rsqrt cbrt",
    "random": "random_bits random_fold_in random_split random_seed threefry2x32",
    "loop": "scan while",
    "collective": "psum psum_invariant pmax pmin all_gather all_to_all reduce_scatter ppermute",
    "host": "pure_callback io_callback debug_callback debug_print infeed outfeed",
}
KIND = {primitive: kind for kind, primitives in KINDS.items() for primitive in primitives.split()}
# A compiler makes nothing of these, or a part of what reads them.
FREE = {
    *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "iota", "stop_gradient", "copy", "split"),
    *("random_wrap", "random_unwrap", "axis_index", "platform_index", "empty", "empty2", "pvary", "pcast"),
    *("slice", "stack", "unstack", "pad", "optimization_barrier", "create_token"),
}


class Counts(NamedTuple):
    """Of one step. operations: kind -> (how often, bytes of the results).

    where: kind -> modules, with how often each has it. compilations: of a training of many steps.
    """

    flops: float
    operations: dict[str, tuple[int, int]]
    compilations: int
    where: dict[str, Counter]


class Traced(NamedTuple):
    """The jaxpr of a model's step on one of DEVICES devices; state: how many of its arrays are the state."""

    jaxpr: Any
    state: int


@cache
def traced(tiny: Tiny) -> Traced:
    """The step of a model with SGD, attention as its definition says it."""
    optimizer = optax.sgd(0.1)
    state = jax.eval_shape(lambda: init(tiny.task, optimizer, 0, tiny.batch))
    step = make_step(tiny.task, optimizer, axis=AXIS)
    with lowered_for("definition"):
        closed = jax.make_jaxpr(step, axis_env=[(AXIS, DEVICES)])(state, tiny.batch)
    return Traced(closed, len(jax.tree.leaves(state)))


def equations(jaxpr: Any, prefix: str = "", times: int = 1) -> Iterator[tuple[Any, str, int]]:
    """(equation, path of its module, how often it runs), into loops and calls; one branch, the longest.

    Equations whose results nobody uses are left out, as every compiler does.
    """
    for eqn in used_equations(jaxpr):
        stack, path = module_path(prefix, eqn)
        parts = ("call_jaxpr", "jaxpr", "fun_jaxpr", "body_jaxpr")
        inner = [opened(eqn.params[part]) for part in parts if part in eqn.params][:1]
        if eqn.primitive.name == "cond":
            inner = [max(map(opened, eqn.params["branches"]), key=lambda body: len(body.eqns))]
        if not inner or eqn.primitive.name in KIND:
            yield eqn, path, times
        trips = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for body in inner:
            yield from equations(body, stack, times * trips)


def counts(tiny: Tiny) -> Counts:
    """What a step of this model asks for."""
    closed, state = traced(tiny)
    often: Counter = Counter()
    size: Counter = Counter()
    where: dict[str, Counter] = {}
    for eqn, path, times in equations(closed.jaxpr):
        name = eqn.primitive.name
        if name in FREE:
            continue
        kind = KIND.get(name, "elementwise")
        often[kind] += times
        size[kind] += times * sum(_bytes(v.aval) for v in eqn.outvars)
        where.setdefault(kind, Counter())[path] += times
    kept = [(v.shape, v.dtype, v.weak_type) for v in closed.in_avals[:state]]
    given = [(v.shape, v.dtype, v.weak_type) for v in closed.out_avals[:state]]
    return Counts(
        flops.count(closed).total,
        {kind: (often[kind], size[kind]) for kind in sorted(often)},
        1 if kept == given else 2,
        where,
    )


def shared(tiny: Tiny) -> dict[str, tuple[int, float]]:
    """Collectives of four devices that share batch and parameters, by kind: (how often, bytes sent)."""
    mesh, sizes = make_mesh("data=2,fsdp=2", jax.devices()[:4]), {"data": 2, "fsdp": 2}
    optimizer = optax.sgd(0.1)
    state = jax.eval_shape(lambda: init(tiny.task, optimizer, 0, tiny.batch))
    shardings = rules.state_shardings(state, mesh)
    placed = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)
    advance = make_step(tiny.task, optimizer)

    def step(state: Any, dataset: Any, batch: Any) -> Any:
        return advance(state, split_positions(batch, mesh, leading=0))

    with lowered_for("definition"):
        jitted = compile_step(step, "jit", mesh, shardings, leading=0, donate=False)
        work = hlo.Work(**partition(jitted.lower(placed, {}, tiny.batch), sizes))
    return {f"{c.kind} over {','.join(c.axes)}": (c.times, c.bytes) for c in work.collectives}


def run(folder: str) -> dict[str, int]:
    """Of a training with evaluations and checkpoints: what is compiled, and arrays read from the device."""
    heard: Counter = Counter()
    listening = True

    def hear(event: str, seconds: float, **_: Any) -> None:
        heard[event] += listening

    read = []
    add = Pending.add

    def note(self: Pending, start: int, metrics: Any) -> None:
        read.append(len(jax.tree.leaves(metrics)))
        add(self, start, metrics)

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(hear)
    Pending.add = note  # type: ignore[method-assign]
    try:
        experiment = tiny_mlp.build(tiny_mlp.Config())
        jaxmodels.train(experiment, folder=folder, mesh="data=1", steps_per_dispatch=2)
    finally:
        Pending.add, listening = add, False  # type: ignore[method-assign]
    programs = heard["/jax/core/compile/backend_compile_duration"]
    return {"compilations": programs, "dispatches": len(read), "arrays read": sum(read)}


def _bytes(aval: Any) -> int:
    if jax.dtypes.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return 8 * int(np.prod(aval.shape))
    return int(np.prod(aval.shape)) * aval.dtype.itemsize


def row(found: Counts) -> dict[str, Any]:
    """A model's entry of the table."""
    return {"flops": found.flops, "compilations": found.compilations, **found.operations}


def grown(
    name: str, found: dict[str, Any], table: dict[str, Any], where: dict[str, Counter] | None = None
) -> list[str]:
    """What is more than in the table, each with the modules that have most of it."""
    if name not in table:
        return [f"{name}: not in {TABLE.name}; add it by python benchmarks/counts.py --write"]
    complaints = []
    for what, got in found.items():
        margins = MARGIN.get(what, (1.0, 1.0))
        if isinstance(got, tuple):
            old = table[name].get(what, [0, 0])
        else:
            got, old = (got,), [table[name].get(what, 0)]
        more = [
            f"{new:,.0f}{unit} (table: {before:,.0f})"
            for new, before, unit, margin in zip(got, old, ("", " bytes"), margins, strict=False)
            if new > margin * before
        ]
        if more:
            most = (where or {}).get(what, Counter()).most_common(3)
            places = (
                "; most in " + ", ".join(f"{path or 'the step'} ({n})" for path, n in most) if most else ""
            )
            complaints.append(f"{name}: {what}, got {' and '.join(more)}{places}")
    return complaints


def read() -> dict[str, Any]:
    """The table."""
    return json.loads(TABLE.read_text())


def write(table: dict[str, Any]) -> None:
    """The table, one model a line."""
    lines = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(table.items())]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def everything() -> tuple[dict[str, Any], dict[str, dict[str, Counter]]]:
    """(what the table holds, counted now; for each model the modules of its operations)."""
    entries: dict[str, Any] = {}
    where = {}
    for tiny in TINY:
        found = counts(tiny)
        entries[tiny.name], where[tiny.name] = row(found), found.where
        if tiny.name in SHARED:
            entries[f"{tiny.name} on four devices"] = shared(tiny)
    with tempfile.TemporaryDirectory() as folder:
        entries["a run of an MLP"] = run(folder)
    return entries, where


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make the table anew")
    wanted = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4)
    entries, where = everything()
    if wanted.write:
        write(entries)
        return 0
    table = read()
    complaints = [
        line for name, found in entries.items() for line in grown(name, found, table, where.get(name, {}))
    ]
    for line in complaints:
        print(line)
    print(f"{len(entries)} entries, {len(complaints)} counts have grown")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
