"""How a step's cost grows: compilation with layers, the step with ways to spread it, speed with processes.

- compile: a GPT's training step with 12, 48 and 96 layers, each lowered and compiled anew. - spread: a step
of a perceptron on eight simulated devices, spread by jit with shardings, by shard_map and by pmap. Here all
  of them share the same cores, so these are costs, not gains.
- processes: examples a second of one and of two processes, each with its own share, by `jaxmodels launch`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import jax
import jax.numpy as jnp
import measure
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from jaxmodels.models.gpt import GPT
from jaxmodels.models.mlp import MLP
from jaxmodels.parallel import rules
from jaxmodels.parallel.compile import PMAP_AXIS, compile_step
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.parallel.placement import put_batch
from jaxmodels.step import init, make_step
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.language import next_token

DEVICES = 8


def compiling(depth: int, length: int) -> dict:
    """Seconds of tracing, lowering and compiling the step of a GPT with so many layers."""
    model = GPT(256, length, 64, depth, 4, remat="full")
    task, optimizer, mesh = next_token(model), optax.adam(1e-3), make_mesh("data=1")
    shape = jax.ShapeDtypeStruct((4, length), jnp.int32)
    batch = {"inputs": shape, "targets": shape, "weight": jax.ShapeDtypeStruct((4, length), jnp.float32)}

    def case() -> float:
        jax.clear_caches()
        begun = time.perf_counter()
        state = jax.eval_shape(lambda: init(task, optimizer, 0, batch))
        placed = rules.state_shardings(state, mesh, model.rules())
        step = make_step(task, optimizer)
        compile_step(lambda s, _, b: step(s, b), "jit", mesh, placed, leading=0).lower(
            state, {}, batch
        ).compile()
        return time.perf_counter() - begun

    return case


def spread(width: int, batch: int, steps: int) -> dict:
    """Seconds of a step on the batch, by how it is spread; "one" has one device."""
    task, optimizer = classify(MLP((width, width), 10)), optax.sgd(0.1)
    random = np.random.default_rng(0)
    rows = {
        "image": random.normal(size=(batch, 784)).astype(np.float32),
        "label": random.integers(0, 10, batch, dtype=np.int32),
        "weight": np.ones(batch, np.float32),
    }
    start = jax.jit(lambda: init(task, optimizer, 0, rows))()

    def compiled(mode: str, axes: str):
        mesh = make_mesh(axes)
        placed = rules.state_shardings(start, mesh)
        step = make_step(task, optimizer, axis=PMAP_AXIS if mode == "pmap" else None)
        program = compile_step(lambda s, _, b: step(s, b), mode, mesh, placed, leading=0, donate=False)
        state = jax.device_put(jax.device_get(start._replace(key=None)), placed._replace(key=None))._replace(
            key=start.key
        )
        moving = put_batch(lambda first, last: {k: x[first:last] for k, x in rows.items()}, batch, mesh)
        executable = program.lower(state, {}, moving).compile()
        return lambda state: executable(state, {}, moving)[0], executable(state, {}, moving)[0]

    def by_shard_map():
        mesh = make_mesh(f"data={DEVICES}")
        step = make_step(task, optimizer, axis="data")
        program = jax.jit(
            jax.shard_map(step, mesh=mesh, in_specs=(P(), P("data")), out_specs=(P(), P()), check_vma=False)
        )
        moving = put_batch(lambda first, last: {k: x[first:last] for k, x in rows.items()}, batch, mesh)
        return lambda state: program(state, moving)[0], program(start, moving)[0]

    made = {
        "one": compiled("jit", "data=1"),
        "jit": compiled("jit", f"data={DEVICES}"),
        "shard_map": by_shard_map(),
        "pmap": compiled("pmap", f"data={DEVICES}"),
    }

    def case(name: str):
        def call() -> float:
            run, state = made[name]
            begun = time.perf_counter()
            for _ in range(steps):
                state = jax.block_until_ready(run(state))
            return (time.perf_counter() - begun) / steps

        return call

    return {name: case(name) for name in made}


def processes(count: int, steps: int):
    """Seconds of a step in which each of so many processes has a batch of 512 rows."""
    file = Path(__file__).parents[1] / "experiments" / "digits_mlp.py"
    knobs = ["--batch", str(512 * count), "--steps", str(steps)]

    def case() -> float:
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "jaxmodels",
                "launch",
                "--processes",
                str(count),
                str(file),
                *knobs,
            ]
            command += ["--folder", f"{folder}/run", "--quiet", "--json", "--steps-per-dispatch", "1"]
            env = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
            done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600)
            if done.returncode:
                raise RuntimeError(
                    f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}"
                )
            summary = json.loads(done.stdout.splitlines()[-1])
            return 512 * count / summary["examples_per_s"]

    return case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=0, help="5 or more; 1 when quick")
    parser.add_argument(
        "--patience", type=int, default=3, help="times as many rounds where the machine is busy"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test: few layers, small batches, one round"
    )
    args = parser.parse_args()
    rounds, patience = args.rounds or (1 if args.quick else 5), 1 if args.quick else args.patience
    cases, checks = {}, []

    depths = (2, 4) if args.quick else (12, 48, 96)
    measure.note("compile")
    got = measure.interleaved(
        {str(n): compiling(n, 32 if args.quick else 128) for n in depths}, rounds, patience
    )
    first, last = str(depths[0]), str(depths[-1])
    grown = measure.ratio(got[last], got[first])
    cases["compile"] = {
        "seconds": {name: measure.spread([r.seconds for r in of]) for name, of in got.items()},
        "longer": {name: measure.ratio(of, got[first]) for name, of in got.items()},
        "foreign": measure.foreign(got),
    }
    value = None if args.quick else grown["median"]
    checks.append(measure.check(f"compile time of {last} layers / of {first}", value, most=1.2))

    measure.note("spread")
    got = measure.interleaved(spread(*((32, 64, 2) if args.quick else (512, 1024, 10))), rounds, patience)
    cases["spread"] = {
        "us": {name: measure.microseconds(of) for name, of in got.items()},
        "of_shard_map": {name: measure.ratio(of, got["shard_map"]) for name, of in got.items()},
        "foreign": measure.foreign(got),
    }

    measure.note("processes")
    got = measure.interleaved(
        {str(n): processes(n, 20 if args.quick else 300) for n in (1, 2)}, rounds, patience
    )
    each = {
        n: [measure.Round(r.seconds / int(n), r.foreign) for r in of] for n, of in got.items()
    }  # of 512 rows
    cases["processes"] = {
        "examples_per_s": {n: measure.per_second(of, 512) for n, of in each.items()},
        "times_faster": {n: measure.ratio(each["1"], of) for n, of in each.items()},
    }
    measure.report("scaling", args.quick, cases, checks)


if __name__ == "__main__":
    main()
